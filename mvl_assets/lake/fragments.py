"""Fragments by partition: which fragments of a table hold rows of which source, and fragments that wait for a commit.

Lance keeps no statistics of a column, so the partition values of a fragment are read from its data once per process.
Data files never change, hence what was read of a file stays true for as long as the file exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


class PartitionMap:
    """The partition values of a table's fragments, by data file. Grows with the fragments it is asked about."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._values_by_file: dict[str, frozenset[str]] = {}

    def find_fragments(
        self, dataset: lance.LanceDataset, partition_key: str
    ) -> tuple[list[lance.LanceFragment], list[lance.LanceFragment]]:
        """Return the fragments with rows of the partition only, and those that hold other partitions' rows as well."""
        fragments = dataset.get_fragments()
        self._read_missing(dataset, fragments)
        own: list[lance.LanceFragment] = []
        mixed: list[lance.LanceFragment] = []
        for fragment in fragments:
            values = self._values_by_file[_get_first_file(fragment)]
            if partition_key in values:
                (own if len(values) == 1 else mixed).append(fragment)
        return own, mixed

    def list_partitions(self, dataset: lance.LanceDataset) -> list[str]:
        """List the partitions that have fragments, sorted; one whose rows were all deleted may be among them."""
        fragments = dataset.get_fragments()
        self._read_missing(dataset, fragments)
        return sorted(frozenset[str]().union(*(self._values_by_file[_get_first_file(f)] for f in fragments)))

    def _read_missing(self, dataset: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]) -> None:
        unknown = {f.fragment_id: f for f in fragments if _get_first_file(f) not in self._values_by_file}
        if not unknown:
            return
        values_by_fragment: dict[int, set[str]] = {fragment_id: set() for fragment_id in unknown}
        scanner = dataset.scanner(
            columns=[self._column], fragments=list(unknown.values()), with_row_address=True, batch_size=65_536
        )
        for batch in scanner.to_batches():
            fragment_ids = np.asarray(batch.column("_rowaddr")) >> FRAGMENT_BITS
            # A batch is of one fragment, as a rule.
            for fragment_id in np.unique(fragment_ids).tolist():
                values = batch.column(self._column).filter(pa.array(fragment_ids == fragment_id))
                values_by_fragment[fragment_id].update(values.unique().to_pylist())
        for fragment_id, fragment in unknown.items():
            self._values_by_file[_get_first_file(fragment)] = frozenset(values_by_fragment[fragment_id])


def list_data_files(fragments: Iterable[FragmentMetadata]) -> list[str]:
    """List the data files of fragments, relative to the table's `data` folder."""
    return [file.path for fragment in fragments for file in fragment.files]


def format_fragments(fragments: Iterable[FragmentMetadata]) -> tuple[str, ...]:
    """Return Lance's metadata of each fragment as JSON."""
    return tuple(json.dumps(fragment.to_json()) for fragment in fragments)


def _get_first_file(fragment: lance.LanceFragment) -> str:
    return fragment.metadata.files[0].path
