"""The first pass over a source: which rows there are, what each is called, and which of them a limit takes.

Names only, 32 bytes a row; no picture is read. The second pass (`ingest`) asks here for the id of every row it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mvl_assets.common.digest import compute_digest
from mvl_assets.readers.format import RowKey

ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class RowIndex:
    """All rows of a source in reading order.

    `file_spans` gives each file's first row and number of rows, `row_keys` and `sample_ids` hold 16 bytes a row: the digest of what the
    source calls the row, and the sample id. `selected` is None when every row is wanted.
    """

    file_spans: dict[str, tuple[int, int]]
    row_keys: bytes
    sample_ids: bytes
    selected: np.ndarray | None

    def __len__(self) -> int:
        return len(self.sample_ids) // ID_BYTES

    def find_index(self, file: str, position: int) -> int | None:
        """The row's number in reading order, None for a row that was not there at the first pass."""
        first, n_rows = self.file_spans.get(file, (0, 0))
        return first + position if position < n_rows else None

    def is_selected(self, index: int) -> bool:
        return self.selected is None or bool(self.selected[index])

    def get_sample_id(self, index: int) -> str:
        return self.sample_ids[index * ID_BYTES : (index + 1) * ID_BYTES].hex()

    def matches_key(self, index: int, key: bytes) -> bool:
        """Whether the row is the one that was there at the first pass."""
        return self.row_keys[index * ID_BYTES : (index + 1) * ID_BYTES] == key

    def to_sorted_ids(self) -> np.ndarray:
        return np.sort(np.frombuffer(self.sample_ids, dtype=f"S{ID_BYTES}"))


def compute_row_key(file: str, position: int, native_id: str | None) -> bytes:
    """16 bytes for what the source calls a row: its own id, or else its place."""
    identity = [native_id] if native_id is not None else [file, position]
    return bytes.fromhex(compute_digest(identity))


def build_row_index(source: str, rows: Iterable[RowKey], limit: int | None) -> RowIndex:
    """Names every row. A sample id is the digest of (source, own id or place, how often that was seen before).

    With a limit the rows with the smallest ids are chosen, so a larger limit contains a smaller one.
    """
    file_spans: dict[str, tuple[int, int]] = {}
    row_keys = bytearray()
    for n_before, row in enumerate(rows):
        first, n_rows = file_spans.get(row.file, (n_before, 0))
        assert (first + n_rows, row.position) == (n_before, n_rows), "rows of a file come together, counted from 0"
        file_spans[row.file] = (first, n_rows + 1)
        row_keys += compute_row_key(*row)
    slug = source.encode()
    sample_ids = bytearray()
    for index, occurrence in enumerate(_count_occurrences(row_keys)):
        key = bytes(row_keys[index * ID_BYTES : (index + 1) * ID_BYTES])
        sample_ids += bytes.fromhex(compute_digest(slug, key, int(occurrence).to_bytes(8, "little")))
    return RowIndex(file_spans, bytes(row_keys), bytes(sample_ids), _select_smallest(sample_ids, limit))


def _count_occurrences(keys: bytearray) -> np.ndarray:
    """For every key how many equal ones came before it."""
    array = np.frombuffer(keys, dtype=f"S{ID_BYTES}")
    order = np.argsort(array, kind="stable")
    ordered = array[order]
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    positions = np.arange(len(ordered))
    group_starts = np.maximum.accumulate(np.where(is_first, positions, 0)) if len(ordered) else positions
    occurrences = np.empty(len(ordered), dtype=np.int64)
    occurrences[order] = positions - group_starts
    return occurrences


def _select_smallest(ids: bytearray, limit: int | None) -> np.ndarray | None:
    array = np.frombuffer(ids, dtype=f"S{ID_BYTES}")
    if limit is None or limit >= len(array):
        return None
    selected = np.zeros(len(array), dtype=bool)
    selected[np.argsort(array, kind="stable")[: max(0, limit)]] = True
    return selected
