"""A set of 32-hex ids in 16 bytes each, for questions about more ids than Python's sets should hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

ID_BYTES = 16


class IdSet:
    """A sorted array of ids. `batches` may repeat."""

    def __init__(self, batches: Iterable[Iterable[str]]) -> None:
        """`batches` comes in batches, so that a generator over a table's columns can fill the set."""
        packed_batches = [_pack_ids(batch) for batch in batches]
        self._ids = np.unique(np.concatenate(packed_batches)) if packed_batches else np.empty(0, dtype=f"S{ID_BYTES}")

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        # numpy drops trailing zero bytes when it hands out one item.
        return (bytes(item).ljust(ID_BYTES, b"\0").hex() for item in self._ids)

    def contains(self, ids: Iterable[str]) -> np.ndarray:
        """For each of `batches`, in order, whether it is in the set."""
        packed_ids = _pack_ids(ids)
        return (
            self._ids[self._find_positions(packed_ids)] == packed_ids
            if len(self._ids)
            else np.zeros(len(packed_ids), dtype=bool)
        )

    def difference(self, batches: Iterable[Iterable[str]]) -> IdSet:
        """The ids that are in none of the batches."""
        is_remaining = np.ones(len(self._ids), dtype=bool)
        for batch in batches:
            packed_ids = _pack_ids(batch)
            if len(self._ids) and len(packed_ids):
                positions = self._find_positions(packed_ids)
                is_remaining[positions[self._ids[positions] == packed_ids]] = False
        remaining = IdSet(())
        remaining._ids = self._ids[is_remaining]
        return remaining

    def to_arrow(self) -> pa.Array:
        return pa.array(list(self), pa.string())

    def _find_positions(self, packed_ids: np.ndarray) -> np.ndarray:
        return np.minimum(np.searchsorted(self._ids, packed_ids), len(self._ids) - 1)


def _pack_ids(ids: Iterable[str]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=f"S{ID_BYTES}")
