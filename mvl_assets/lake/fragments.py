"""Fragments by partition: which fragments of a table hold rows of which source, and fragments that wait for a commit.

Lance keeps no statistics of a column, so the partition values of a fragment are read from its data once per process.
Data files never change, hence what was read of a file stays true for as long as the file exists.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import FragmentMetadata

FRAGMENT_BITS = 32
"""A row address is the fragment's id, shifted by this many bits, plus the row's offset in the fragment."""


@dataclass(frozen=True, slots=True)
class UncommittedFragments:
    """Rows of one partition that are on disk but in no version of their table yet. Can be pickled.

    Attributes:
        partition_key: Value of the table's partition column; None for a table without one.
        fragments: Lance's metadata of each fragment, as JSON.
        n_rows: Rows in all of them.
        hash_sum: Sum of the row hashes, modulo 2^128 (see `DigestSum`).
    """

    partition_key: str | None
    fragments: tuple[str, ...]
    n_rows: int
    hash_sum: int

    def to_lance(self) -> list[FragmentMetadata]:
        """Return the fragments as Lance's commit operations take them."""
        return [FragmentMetadata.from_json(fragment) for fragment in self.fragments]


def load_fragments(written: Iterable[UncommittedFragments]) -> list[FragmentMetadata]:
    """Return the fragments of all parts as Lance's commit operations take them."""
    return [fragment for part in written for fragment in part.to_lance()]


class PartitionMap:
    """The partition values of a table's fragments. Grows with the fragments it is asked about.

    Fragments are known by their ids, because asking Lance for the files of every fragment would cost each commit and
    scan 20 microseconds for every fragment of the table. A table never gives an id to another fragment; that it still
    is the same table, and was not made anew under its name, is seen by the file of one known fragment.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._file_by_id: dict[int, str] = {}
        self._ids_by_value: dict[str, list[int]] = {}
        self._mixed_ids: set[int] = set()
        self._lock = threading.Lock()

    def find_fragments(
        self, dataset: lance.LanceDataset, partition_key: str
    ) -> tuple[list[lance.LanceFragment], list[lance.LanceFragment]]:
        """Return the fragments with rows of the partition only, and those that hold other partitions' rows as well."""
        own: list[lance.LanceFragment] = []
        mixed: list[lance.LanceFragment] = []
        present_ids = self._read_missing(dataset)
        for fragment_id in sorted(present_ids.intersection(self._ids_by_value.get(partition_key, ()))):
            (mixed if fragment_id in self._mixed_ids else own).append(_get_fragment(dataset, fragment_id))
        return own, mixed

    def list_partitions(self, dataset: lance.LanceDataset) -> list[str]:
        """List the partitions that have fragments, sorted; one whose rows were all deleted may be among them."""
        present_ids = self._read_missing(dataset)
        return sorted(value for value, ids in self._ids_by_value.items() if not present_ids.isdisjoint(ids))

    def _read_missing(self, dataset: lance.LanceDataset) -> set[int]:
        """Read the values of the fragments that are not known yet, and return the ids of all."""
        with self._lock:
            return self._read_missing_locked(dataset)

    def _read_missing_locked(self, dataset: lance.LanceDataset) -> set[int]:
        fragment_ids = set(dataset.fragment_ids())
        self._drop_other_table(dataset, fragment_ids)
        unknown = [_get_fragment(dataset, i) for i in sorted(fragment_ids - self._file_by_id.keys())]
        if not unknown:
            return fragment_ids
        values_by_id: dict[int, set[str]] = {fragment.fragment_id: set() for fragment in unknown}
        scanner = dataset.scanner(columns=[self._column], fragments=unknown, with_row_address=True, batch_size=65_536)
        for batch in scanner.to_batches():
            row_fragment_ids = np.asarray(batch.column("_rowaddr")) >> FRAGMENT_BITS
            # A batch is of one fragment, as a rule.
            for fragment_id in np.unique(row_fragment_ids).tolist():
                values = batch.column(self._column).filter(pa.array(row_fragment_ids == fragment_id))
                values_by_id[fragment_id].update(values.unique().to_pylist())
        for fragment in unknown:
            fragment_id = fragment.fragment_id
            self._file_by_id[fragment_id] = _get_first_file(fragment)
            values_of_fragment = values_by_id[fragment_id]
            if len(values_of_fragment) > 1:
                self._mixed_ids.add(fragment_id)
            for value in values_of_fragment:
                self._ids_by_value.setdefault(value, []).append(fragment_id)
        return fragment_ids

    def _drop_other_table(self, dataset: lance.LanceDataset, fragment_ids: Collection[int]) -> None:
        known_id = next((fragment_id for fragment_id in fragment_ids if fragment_id in self._file_by_id), None)
        if known_id is not None and self._file_by_id[known_id] != _get_first_file(_get_fragment(dataset, known_id)):
            self._file_by_id, self._ids_by_value, self._mixed_ids = {}, {}, set()


@lru_cache(maxsize=256)
def get_partition_map(uri: str, column: str) -> PartitionMap:
    """Return the map of a table, which all its readers in this process share: it reads a whole column at first."""
    return PartitionMap(column)


def list_data_files(fragments: Iterable[FragmentMetadata]) -> list[str]:
    """List the data files of fragments, relative to the table's `data` folder."""
    return [file.path for fragment in fragments for file in fragment.files]


def format_fragments(fragments: Iterable[FragmentMetadata]) -> tuple[str, ...]:
    """Return Lance's metadata of each fragment as JSON."""
    return tuple(json.dumps(fragment.to_json()) for fragment in fragments)


def list_signed_fragments(dataset: lance.LanceDataset) -> dict[str, lance.LanceFragment]:
    """Return the fragments of a version by their signatures: id, first data file and number of deleted rows.

    A fragment with the same signature has the same rows, in any version of the table.
    """
    return {format_signature(fragment): fragment for fragment in dataset.get_fragments()}


def format_signature(fragment: lance.LanceFragment) -> str:
    """Return what tells a fragment from all others of its table, and from itself with other rows deleted."""
    return f"{fragment.fragment_id}:{_get_first_file(fragment)}:{fragment.num_deletions}"


def _get_fragment(dataset: lance.LanceDataset, fragment_id: int) -> lance.LanceFragment:
    fragment = dataset.get_fragment(fragment_id)
    assert fragment is not None  # the ids are those of this version
    return fragment


def _get_first_file(fragment: lance.LanceFragment) -> str:
    return fragment.metadata.files[0].path
