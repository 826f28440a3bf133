"""The ids of a source's rows, given in reading order, and which of the rows a limit selects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import encode_canonical_json, encode_plain_json, prepend_length
from mvl_assets.common.id_array import ID_BYTES, ID_DTYPE, concatenate_ids, find_ids, pack_ids
from mvl_assets.readers.format import RowKey

RECENT_KEYS = 65_536
"""Keys that are counted in a dictionary before they go into a sorted array, which takes a fifth of the memory."""

SELECTION_ROWS = 65_536


class PlacedRow(Protocol):
    """What identifies a row within its source: a `RowKey`, a `Sample` or a `RejectedRow`."""

    @property
    def file(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def native_id(self) -> str | None: ...


class RowNumbering:
    """Gives each row its sample id: a digest of (source, own id or place, number of earlier rows with the same).

    Memory holds 24 bytes for each row with an id of its own, and the names of the files.
    """

    def __init__(self, source: str) -> None:
        self.n_rows = 0
        slug = source.encode()
        # What `compute_digest(slug, key, occurrence)` digests, with the lengths of its parts.
        self._prefix = _encode_length(len(slug)) + slug + _encode_length(ID_BYTES)
        self._occurrences = _OccurrenceCounter()
        self._files: set[str] = set()
        self._next_position = ("", 0)

    def generate_ids(self, rows: Sequence[PlacedRow]) -> list[str]:
        """Return the sample ids of the next rows."""
        keys = []
        named_keys = []
        for row in rows:
            self._check_position(row.file, row.position)
            key = compute_row_key(row.file, row.position, row.native_id)
            keys.append(key)
            if row.native_id is not None:  # a place occurs once
                named_keys.append(key)
        self.n_rows += len(rows)
        counts = iter(self._occurrences.count_earlier(named_keys))
        prefix = self._prefix
        return [
            blake2b(
                prefix + key + _OCCURRENCE_LENGTH + _encode_length(0 if row.native_id is None else next(counts)),
                digest_size=ID_BYTES,
            ).hexdigest()
            for row, key in zip(rows, keys, strict=True)
        ]

    def _check_position(self, file: str, position: int) -> None:
        if (file, position) != self._next_position:
            assert position == 0 and file not in self._files, "rows of a file must be contiguous and counted from 0"
            self._files.add(file)
        self._next_position = (file, position + 1)


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a limit selects: those with the smallest ids, so a larger limit contains a smaller one.

    Attributes:
        n_rows: How many there are.
        last_id: The largest selected sample id, "" when none is selected.
    """

    n_rows: int
    last_id: str

    def contains(self, sample_id: str) -> bool:
        """Return whether the row is selected."""
        return sample_id <= self.last_id


def select_rows(source: str, keys: Iterable[RowKey], limit: int) -> Selection:
    """Return which of a source's rows the limit selects."""
    numbering = RowNumbering(source)
    smallest = np.empty(0, dtype=ID_DTYPE)
    for batch in iter_batches(keys, max(limit, SELECTION_ROWS)):
        ids = concatenate_ids([smallest, pack_ids(numbering.generate_ids(batch))])
        smallest = np.sort(ids)[: max(0, limit)]
    last_id = smallest[-1].ljust(ID_BYTES, b"\0").hex() if len(smallest) else ""
    return Selection(len(smallest), last_id)


def compute_row_key(file: str, position: int, native_id: str | None) -> bytes:
    """Return 16 bytes that identify a row within its source: a digest of its own id, or else of its place."""
    identity = [native_id] if native_id is not None else [file, position]
    try:
        data = encode_plain_json(identity)
    except UnicodeEncodeError:
        data = encode_canonical_json(identity)
    return blake2b(prepend_length(data), digest_size=ID_BYTES).digest()


class _OccurrenceCounter:
    """Counts keys of 16 bytes: new ones in a dictionary, others in sorted arrays, each twice as long as the next."""

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def count_earlier(self, keys: Sequence[bytes]) -> list[int]:
        """Return for each key how many equal ones came before it, and count them all."""
        totals = np.zeros(len(keys), dtype=np.int64)
        packed_keys = np.frombuffer(b"".join(keys), dtype=ID_DTYPE)
        for run_keys, run_counts in self._runs:
            positions, is_present = find_ids(run_keys, packed_keys)
            totals[is_present] += run_counts[positions[is_present]]
        counts = []
        for key, total in zip(keys, totals.tolist(), strict=True):
            n_recent = self._recent.get(key, 0)
            self._recent[key] = n_recent + 1
            counts.append(total + n_recent)
        if len(self._recent) >= RECENT_KEYS:
            self._store_recent()
        return counts

    def _store_recent(self) -> None:
        keys = np.frombuffer(b"".join(self._recent), dtype=ID_DTYPE)
        counts = np.fromiter(self._recent.values(), dtype=np.int64, count=len(keys))
        self._recent = {}
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            run_keys, run_counts = self._runs.pop()
            keys, counts = np.concatenate([run_keys, keys]), np.concatenate([run_counts, counts])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        self._runs.append((keys[starts], np.add.reduceat(counts, starts)))


def _encode_length(number: int) -> bytes:
    return number.to_bytes(8, "little")


_OCCURRENCE_LENGTH = _encode_length(8)
