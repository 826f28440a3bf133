"""The first pass over a source: which rows there are, the id of each, and which of them a limit selects.

Keys only, 32 bytes a row; no image is read. The second pass (`ingest`) looks up the id of every row it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.id_array import ID_BYTES, ID_DTYPE
from mvl_assets.readers.format import RowKey


@dataclass(frozen=True, slots=True)
class RowIndex:
    """All rows of a source in reading order.

    Attributes:
        file_spans: First row and number of rows of each file.
        row_keys: 16 bytes a row, the digest of the row's own id or place (`compute_row_key`).
        sample_ids: 16 bytes a row.
        selected: Which rows the limit selects; None selects all.
    """

    file_spans: dict[str, tuple[int, int]]
    row_keys: bytes
    sample_ids: bytes
    selected: np.ndarray | None

    def __len__(self) -> int:
        return len(self.sample_ids) // ID_BYTES

    def find_index(self, file: str, position: int) -> int | None:
        """Return the row's number in reading order; None for a row that the first pass did not see."""
        first, n_rows = self.file_spans.get(file, (0, 0))
        return first + position if position < n_rows else None

    def is_selected(self, index: int) -> bool:
        """Return whether the limit selects the row."""
        return self.selected is None or bool(self.selected[index])

    def get_sample_id(self, index: int) -> str:
        """Return the row's sample id."""
        return self.sample_ids[index * ID_BYTES : (index + 1) * ID_BYTES].hex()

    def matches_key(self, index: int, key: bytes) -> bool:
        """Return whether the row is the one that the first pass saw there."""
        return self.row_keys[index * ID_BYTES : (index + 1) * ID_BYTES] == key

    def to_sorted_ids(self) -> np.ndarray:
        """Return all sample ids as a sorted array of packed ids."""
        return np.sort(np.frombuffer(self.sample_ids, dtype=ID_DTYPE))


def compute_row_key(file: str, position: int, native_id: str | None) -> bytes:
    """Return 16 bytes that identify a row within its source: a digest of its own id, or else of its place."""
    identity = [native_id] if native_id is not None else [file, position]
    return bytes.fromhex(compute_digest(identity))


def build_row_index(source: str, rows: Iterable[RowKey], limit: int | None) -> RowIndex:
    """Return the index of a source's rows.

    A sample id is the digest of (source, own id or place, number of earlier rows with the same). A limit selects the
    rows with the smallest ids, so a larger limit contains a smaller one.
    """
    file_spans: dict[str, tuple[int, int]] = {}
    row_keys = bytearray()
    for n_before, row in enumerate(rows):
        first, n_rows = file_spans.get(row.file, (n_before, 0))
        assert (first + n_rows, row.position) == (n_before, n_rows), (
            "rows of a file must be contiguous and counted from 0"
        )
        file_spans[row.file] = (first, n_rows + 1)
        row_keys += compute_row_key(*row)
    slug = source.encode()
    sample_ids = bytearray()
    for index, occurrence in enumerate(_count_occurrences(row_keys)):
        key = bytes(row_keys[index * ID_BYTES : (index + 1) * ID_BYTES])
        sample_ids += bytes.fromhex(compute_digest(slug, key, int(occurrence).to_bytes(8, "little")))
    return RowIndex(file_spans, bytes(row_keys), bytes(sample_ids), _select_smallest(sample_ids, limit))


def _count_occurrences(keys: bytearray) -> np.ndarray:
    """Return, for every key, how many equal ones precede it."""
    array = np.frombuffer(keys, dtype=ID_DTYPE)
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
    array = np.frombuffer(ids, dtype=ID_DTYPE)
    if limit is None or limit >= len(array):
        return None
    selected = np.zeros(len(array), dtype=bool)
    selected[np.argsort(array, kind="stable")[: max(0, limit)]] = True
    return selected
