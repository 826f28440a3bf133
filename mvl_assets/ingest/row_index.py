"""The first pass over a source: which rows there are, what each is called, and which of them a limit takes.

Names only, 32 bytes a row; no picture is read. The second pass (`ingest`) asks here for the id of every row it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mvl_assets.common.digest import digest_hex
from mvl_assets.readers.registry import RowKey

WIDTH = 16


@dataclass(frozen=True, slots=True)
class Census:
    """All rows of a source in reading order.

    `files` gives each file's first row and number of rows, `keys` and `ids` hold 16 bytes a row: the digest of what the
    source calls the row, and the sample id. `chosen` is None when every row is wanted.
    """

    files: dict[str, tuple[int, int]]
    keys: bytes
    ids: bytes
    chosen: np.ndarray | None

    def __len__(self) -> int:
        return len(self.ids) // WIDTH

    def index(self, file: str, position: int) -> int | None:
        """The row's number in reading order, None for a row that was not there at the first pass."""
        first, count = self.files.get(file, (0, 0))
        return first + position if position < count else None

    def is_chosen(self, index: int) -> bool:
        return self.chosen is None or bool(self.chosen[index])

    def sample_id(self, index: int) -> str:
        return self.ids[index * WIDTH : (index + 1) * WIDTH].hex()

    def is_called(self, index: int, key: bytes) -> bool:
        """Whether the row is the one that was there at the first pass."""
        return self.keys[index * WIDTH : (index + 1) * WIDTH] == key

    def sorted_ids(self) -> np.ndarray:
        return np.sort(np.frombuffer(self.ids, dtype=f"S{WIDTH}"))


def row_key(file: str, position: int, native_id: str | None) -> bytes:
    """16 bytes for what the source calls a row: its own id, or else its place."""
    name = [native_id] if native_id is not None else [file, position]
    return bytes.fromhex(digest_hex(name))


def take_census(source: str, rows: Iterable[RowKey], limit: int | None) -> Census:
    """Names every row. A sample id is the digest of (source, own id or place, how often that was seen before).

    With a limit the rows with the smallest ids are chosen, so a larger limit contains a smaller one.
    """
    files: dict[str, tuple[int, int]] = {}
    keys = bytearray()
    for total, row in enumerate(rows):
        first, count = files.get(row.file, (total, 0))
        assert (first + count, row.position) == (total, count), "rows of a file come together, counted from 0"
        files[row.file] = (first, count + 1)
        keys += row_key(*row)
    slug = source.encode()
    ids = bytearray()
    for index, occurrence in enumerate(_occurrences(keys)):
        key = bytes(keys[index * WIDTH : (index + 1) * WIDTH])
        ids += bytes.fromhex(digest_hex(slug, key, int(occurrence).to_bytes(8, "little")))
    return Census(files, bytes(keys), bytes(ids), _smallest(ids, limit))


def _occurrences(keys: bytearray) -> np.ndarray:
    """For every key how many equal ones came before it."""
    array = np.frombuffer(keys, dtype=f"S{WIDTH}")
    order = np.argsort(array, kind="stable")
    ordered = array[order]
    begins = np.ones(len(ordered), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(len(ordered))
    starts = np.maximum.accumulate(np.where(begins, places, 0)) if len(ordered) else places
    found = np.empty(len(ordered), dtype=np.int64)
    found[order] = places - starts
    return found


def _smallest(ids: bytearray, limit: int | None) -> np.ndarray | None:
    array = np.frombuffer(ids, dtype=f"S{WIDTH}")
    if limit is None or limit >= len(array):
        return None
    chosen = np.zeros(len(array), dtype=bool)
    chosen[np.argsort(array, kind="stable")[: max(0, limit)]] = True
    return chosen
