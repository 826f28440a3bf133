"""Random access by key: the row offset of every key of a table, in 24 bytes per row of memory.

Lance protects a key only while the key has no index, so lookups by key use sorted arrays in memory instead. They are
refreshed per table version: appended fragments are scanned, any other change rebuilds the arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import lance
import numpy as np

from mvl_assets.common.id_array import concatenate_ids, find_ids, pack_ids
from mvl_assets.lake.table_reader import TableReader

SortedRun = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class KeyOffsets:
    """Row offsets by key in one version of a table; in another version offsets mean nothing.

    Attributes:
        dataset: That version.
        fragment_signatures: (id, rows, deletions) of its fragments.
        runs: Sorted (keys, offsets), each at least twice as long as the next, so that a table that grows by many small
            commits costs little more than sorting it once.
    """

    dataset: lance.LanceDataset
    fragment_signatures: tuple[tuple[int, int, int], ...]
    runs: tuple[SortedRun, ...]

    def lookup(self, keys: Collection[str]) -> dict[str, int]:
        """Return the offsets of the keys that are stored, by key, in the order of `keys`."""
        unique_keys = list(dict.fromkeys(keys))
        packed_keys = pack_ids(unique_keys)
        offset_by_query: dict[int, int] = {}
        for run_keys, offsets in self.runs:
            positions, is_present = find_ids(run_keys, packed_keys)
            for query_index in np.flatnonzero(is_present):
                offset_by_query[int(query_index)] = int(offsets[positions[query_index]])
        return {unique_keys[hit]: offset_by_query[hit] for hit in sorted(offset_by_query)}


class KeyIndex:
    """Lookup of one table's rows by their 32-hex keys."""

    def __init__(self, table: TableReader) -> None:
        self.table = table
        self._key_offsets: KeyOffsets | None = None

    def find_existing(self, keys: Collection[str]) -> set[str]:
        """Return those of the keys that are stored."""
        key_offsets = self.load_key_offsets()
        return set() if key_offsets is None else set(key_offsets.lookup(keys))

    def read_rows(self, keys: Collection[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """Return the rows of the keys that are stored, by key, in the order of `keys`."""
        key_offsets = self.load_key_offsets()
        offsets = {} if key_offsets is None else key_offsets.lookup(keys)
        if key_offsets is None or not offsets:
            return {}
        column_names = list(columns) if columns is not None else self.table.schema.names
        rows = key_offsets.dataset.take(list(offsets.values()), columns=column_names).to_pylist()
        return dict(zip(offsets, rows, strict=True))

    def load_key_offsets(self) -> KeyOffsets | None:
        """Return the offsets of the newest version, or None for a table that does not exist."""
        if not self.table.exists():
            self._key_offsets = None
            return None
        newest = self.table.open()
        previous = self._key_offsets
        if previous is not None and previous.dataset.version == newest.version:
            return previous
        # A handle of its own: the table's handle moves on to later versions, these offsets do not.
        dataset = newest.checkout_version(newest.version)
        fragments = dataset.get_fragments()
        fragment_signatures = _build_fragment_signatures(fragments)
        n_indexed = len(previous.fragment_signatures) if previous is not None else 0
        runs: tuple[SortedRun, ...] = previous.runs if previous is not None else ()
        if previous is not None and fragment_signatures[:n_indexed] != previous.fragment_signatures:
            n_indexed, runs = 0, ()
        first_offset = sum(n_rows - n_deleted for _, n_rows, n_deleted in fragment_signatures[:n_indexed])
        if fragments[n_indexed:]:
            scanner = dataset.scanner(
                columns=[self.table.spec.key_column], fragments=fragments[n_indexed:], batch_size=8192
            )
            keys = concatenate_ids(pack_ids(batch.column(0).to_pylist()) for batch in scanner.to_batches())
            runs = _merge_runs(runs, keys, np.arange(first_offset, first_offset + len(keys)))
        self._key_offsets = KeyOffsets(dataset, fragment_signatures, runs)
        return self._key_offsets

    @contextmanager
    def keep_during_compaction(self) -> Iterator[None]:
        """Keep the offsets valid across a compaction by the only writer, if every row keeps its offset.

        A compaction usually joins the last fragments; then nothing has to be read again.
        """
        previous = self.load_key_offsets() if self._key_offsets is not None else None
        yield
        self._key_offsets = None
        if previous is not None:
            newest = self.table.open()
            dataset = newest.checkout_version(newest.version)
            fragment_signatures = _build_fragment_signatures(dataset.get_fragments())
            kept_signatures = [fragment for fragment in fragment_signatures if fragment in previous.fragment_signatures]
            # Rewritten fragments are moved to the end, also those from the middle in which rows were deleted.
            if (
                tuple(kept_signatures)
                == fragment_signatures[: len(kept_signatures)]
                == previous.fragment_signatures[: len(kept_signatures)]
            ):
                self._key_offsets = KeyOffsets(dataset, fragment_signatures, previous.runs)


def _build_fragment_signatures(fragments: Sequence[lance.LanceFragment]) -> tuple[tuple[int, int, int], ...]:
    return tuple((f.fragment_id, f.physical_rows, f.num_deletions) for f in fragments)


def _merge_runs(runs: tuple[SortedRun, ...], keys: np.ndarray, offsets: np.ndarray) -> tuple[SortedRun, ...]:
    while runs and len(runs[-1][0]) < 2 * len(keys):
        *remaining_runs, (last_keys, last_offsets) = runs
        runs = tuple(remaining_runs)
        keys, offsets = np.concatenate([last_keys, keys]), np.concatenate([last_offsets, offsets])
    if not len(keys):
        return runs
    order = np.argsort(keys, kind="stable")
    return (*runs, (keys[order], offsets[order]))
