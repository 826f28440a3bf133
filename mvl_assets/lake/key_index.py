"""Random access by key: the row address of every key of a table or partition, in 24 bytes per row of memory.

Lance protects a key only while the key has no index, so lookups by key use sorted arrays in memory instead. A row keeps
its address as long as its fragment exists, so a newer version of the table costs reading the fragments that are new.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import lance
import numpy as np

from mvl_assets.common.id_array import ID_DTYPE, concatenate_ids, find_ids, pack_id_column, pack_ids
from mvl_assets.lake.errors import translate_store_errors
from mvl_assets.lake.fragments import FRAGMENT_BITS
from mvl_assets.lake.table_reader import TableReader

SortedRun = tuple[np.ndarray, np.ndarray]
FragmentSignature = tuple[int, int]


@dataclass(frozen=True, slots=True)
class KeyAddresses:
    """Row addresses by key in one version of a table.

    Attributes:
        dataset: That version.
        signatures: (id, deletions) of the fragments that were read; a fragment's other rows never change.
        runs: Sorted (keys, addresses), each at least twice as long as the next, so that a table that grows by many
            small commits costs little more than sorting it once.
    """

    dataset: lance.LanceDataset
    signatures: frozenset[FragmentSignature]
    runs: tuple[SortedRun, ...]

    def lookup(self, keys: Collection[str]) -> dict[str, int]:
        """Return the addresses of the keys that are stored, by key, in the order of `keys`.

        Of several rows with one key the one that was written first is taken.
        """
        unique_keys = list(dict.fromkeys(keys))
        packed_keys = pack_ids(unique_keys)
        addresses = np.full(len(unique_keys), np.iinfo(np.uint64).max, dtype=np.uint64)
        for run_keys, run_addresses in self.runs:
            positions, is_present = find_ids(run_keys, packed_keys)
            run_matches = run_addresses[positions[is_present]]
            addresses[is_present] = np.minimum(addresses[is_present], run_matches)
        stored_indices = np.flatnonzero(addresses != np.iinfo(np.uint64).max)
        return {unique_keys[index]: int(addresses[index]) for index in stored_indices.tolist()}


class KeyIndex:
    """Lookup of rows by their 32-hex keys, in one table or in one partition of it."""

    def __init__(self, table: TableReader, partition_key: str | None = None) -> None:
        self.table = table
        self.partition_key = partition_key
        self._key_addresses: KeyAddresses | None = None

    def find_existing(self, keys: Collection[str]) -> set[str]:
        """Return those of the keys that are stored."""
        key_addresses = self.load_key_addresses()
        return set() if key_addresses is None else set(key_addresses.lookup(keys))

    def read_rows(self, keys: Collection[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """Return the rows of the keys that are stored, by key, in the order of `keys`."""
        key_addresses = self.load_key_addresses()
        addresses = {} if key_addresses is None else key_addresses.lookup(keys)
        if key_addresses is None or not addresses:
            return {}
        column_names = list(columns) if columns is not None else self.table.schema.names
        # Lance's public `take` wants positions in the whole table, which every other partition's write changes.
        with translate_store_errors(self.table.uri):
            rows = key_addresses.dataset._take_rows(list(addresses.values()), columns=column_names).to_pylist()
        return dict(zip(addresses, rows, strict=True))

    def load_key_addresses(self) -> KeyAddresses | None:
        """Return the addresses in the newest version, or None for a table that does not exist."""
        dataset = self.table.open_if_exists()
        if dataset is None:
            self._key_addresses = None
            return None
        previous = self._key_addresses
        if previous is not None and previous.dataset.version == dataset.version:
            return previous
        if previous is not None and dataset.version < previous.dataset.version:
            previous = None  # the table was made anew
        fragments, condition = self._list_fragments(dataset)
        fragment_by_signature = {_get_signature(fragment): fragment for fragment in fragments}
        signatures = frozenset(fragment_by_signature)
        known = frozenset[FragmentSignature]() if previous is None else previous.signatures
        runs = () if previous is None else _drop_fragments(previous.runs, known - signatures)
        new_fragments = [fragment_by_signature[signature] for signature in sorted(signatures - known)]
        if new_fragments:
            runs = _merge_runs(runs, *self._read_keys(dataset, new_fragments, condition))
        self._key_addresses = KeyAddresses(dataset, signatures, runs)
        return self._key_addresses

    def _list_fragments(self, dataset: lance.LanceDataset) -> tuple[list[lance.LanceFragment], str | None]:
        """Return the fragments with the rows to look up, and the condition that selects these rows in them."""
        if self.partition_key is None:
            return dataset.get_fragments(), None
        own, mixed = self.table.find_fragments(dataset, self.partition_key)
        condition = self.table.build_partition_filter(self.partition_key) if mixed else None
        return sorted([*own, *mixed], key=lambda fragment: fragment.fragment_id), condition

    def _read_keys(
        self, dataset: lance.LanceDataset, fragments: list[lance.LanceFragment], condition: str | None
    ) -> SortedRun:
        scanner = dataset.scanner(
            columns=[self.table.spec.key_column],
            filter=condition,
            fragments=fragments,
            batch_size=8192,
            with_row_address=True,
        )
        keys, addresses = [], [np.empty(0, dtype=np.uint64)]
        with translate_store_errors(self.table.uri):
            for batch in scanner.to_batches():
                keys.append(pack_id_column(batch.column(0)))
                addresses.append(np.asarray(batch.column("_rowaddr"), dtype=np.uint64))
        return concatenate_ids(keys), np.concatenate(addresses)


def _get_signature(fragment: lance.LanceFragment) -> FragmentSignature:
    return fragment.fragment_id, fragment.num_deletions


def _drop_fragments(runs: tuple[SortedRun, ...], dropped: Collection[FragmentSignature]) -> tuple[SortedRun, ...]:
    if not dropped:
        return runs
    fragment_ids = np.array(sorted(fragment_id for fragment_id, _ in dropped), dtype=np.uint64)
    kept_runs = []
    for keys, addresses in runs:
        is_kept = ~np.isin(addresses >> np.uint64(FRAGMENT_BITS), fragment_ids)
        if is_kept.any():
            kept_runs.append((keys[is_kept], addresses[is_kept]))
    return tuple(kept_runs)


def _merge_runs(runs: tuple[SortedRun, ...], keys: np.ndarray, addresses: np.ndarray) -> tuple[SortedRun, ...]:
    while runs and len(runs[-1][0]) < 2 * len(keys):
        *remaining_runs, (last_keys, last_addresses) = runs
        runs = tuple(remaining_runs)
        keys, addresses = np.concatenate([last_keys, keys]), np.concatenate([last_addresses, addresses])
    if not len(keys):
        return runs
    order = np.argsort(keys.astype(ID_DTYPE, copy=False), kind="stable")
    return (*runs, (keys[order], addresses[order]))
