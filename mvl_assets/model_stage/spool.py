"""On-disk spool of the rows of a running stage: the subject of each and the keys of its requests."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class SpooledRow(Generic[Subject]):
    """One row without its messages.

    Attributes:
        subject: What the stage needs to parse answers and to build rows.
        keys: Per chain, the keys of the rounds that are answered or sent at once.
        awaits_answer: Per chain, whether a request was sent whose unusable answer would be followed up.
        longer_round: `ReaskChain.longer_round` of its chains.
    """

    subject: Subject
    keys: tuple[tuple[str, ...], ...]
    awaits_answer: tuple[bool, ...]
    longer_round: int | None = None


class RowSpool(Generic[Subject]):
    """Batches of rows in a file, written starting at any row of the source and read back starting at the first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = path.open("wb")
        self._start = 0

    def write(self, rows: Sequence[SpooledRow[Subject]]) -> None:
        """Append a batch."""
        pickle.dump(rows, self._writer, pickle.HIGHEST_PROTOCOL)

    def mark_first_row(self) -> None:
        """Remember that the batch written next begins with the source's first row."""
        self._start = self._writer.tell()

    def iter_batches(self) -> Iterator[list[SpooledRow[Subject]]]:
        """Yield all batches, in the order of the source."""
        self._writer.flush()
        end = self._writer.tell()
        with self._path.open("rb") as reader:
            for first, last in ((self._start, end), (0, self._start)):
                reader.seek(first)
                while reader.tell() < last:
                    yield pickle.load(reader)  # noqa: S301  # written by this process, in a folder of its own

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
