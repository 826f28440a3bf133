"""A set of 32-hex ids in 16 bytes each, for more ids than a Python set should hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from mvl_assets.common.id_array import concatenate_ids, find_ids, pack_ids, unpack_id


class IdSet:
    """A sorted array of ids."""

    def __init__(self, batches: Iterable[Iterable[str]]) -> None:
        """Collect the ids of all batches, in which ids may repeat. A generator over a table's columns will do."""
        self._ids = np.unique(concatenate_ids(pack_ids(batch) for batch in batches))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return (unpack_id(item) for item in self._ids)

    def contains(self, ids: Iterable[str]) -> np.ndarray:
        """Return a boolean for each of `ids`, in order: whether it is in the set."""
        return find_ids(self._ids, pack_ids(ids))[1]

    def difference(self, batches: Iterable[Iterable[str]]) -> IdSet:
        """Return the set of the ids that are in none of the batches."""
        is_remaining = np.ones(len(self._ids), dtype=bool)
        for batch in batches:
            positions, is_present = find_ids(self._ids, pack_ids(batch))
            is_remaining[positions[is_present]] = False
        remaining = IdSet(())
        remaining._ids = self._ids[is_remaining]
        return remaining

    def to_arrow(self) -> pa.Array:
        """Return the ids as strings, sorted."""
        return pa.array(list(self), pa.string())
