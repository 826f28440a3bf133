"""What belongs together but lies apart in a file, brought together by sorting on disk (an external merge sort).

Belongs here: the sorting. Not here: what the rows mean.
"""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

from mvl_assets.errors import MachineError

RUN_BYTES = 32 << 20
"""About how much is held before it is sorted and put on disk."""

_OVERHEAD = 200  # bytes that Python needs for a row beside its characters

Entry = tuple[str, int, str]  # key, number of the row, its value as JSON


def gathered(rows: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Iterator[Any]]]:
    """Each key with its values in the order in which they came, the keys in the order of their characters.

    Values are what JSON can hold. As with `itertools.groupby`, a key's values are gone once the next key is asked for.
    Memory stays near `RUN_BYTES` whatever the number of rows; a row of 100 characters takes 300 bytes of it. The
    temporary files have no names, so a process that is killed leaves none behind. Raises `MachineError` when they
    cannot be written.
    """
    with ExitStack() as runs:
        sorted_runs: list[Iterator[Entry]] = []
        held: list[Entry] = []
        size = 0
        for number, (key, value) in enumerate(rows):
            text = json.dumps(value)
            held.append((key, number, text))
            size += len(key) + len(text) + _OVERHEAD
            if size >= RUN_BYTES:
                with _disk_errors():
                    stream = runs.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
                    _spool(stream, sorted(held))
                sorted_runs.append(_entries(stream))
                held, size = [], 0
        merged = heapq.merge(*sorted_runs, sorted(held))
        for key, group in groupby(merged, itemgetter(0)):
            yield key, (json.loads(text) for _, _, text in group)


def _spool(stream: IO[str], entries: list[Entry]) -> None:
    for key, number, text in entries:
        stream.write(f"{json.dumps(key)}\t{number}\t{text}\n")
    stream.seek(0)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"rows cannot be sorted in a temporary file: {error.strerror}",
            hint="free some space, or name a folder on another disk in TMPDIR",
        ) from error


def _entries(stream: IO[str]) -> Iterator[Entry]:
    for line in stream:
        key, number, text = line.rstrip("\n").split("\t")
        yield json.loads(key), int(number), text
