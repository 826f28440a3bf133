"""A set of 32-hex ids in 16 bytes each, for questions about more ids than Python's sets should hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

WIDTH = 16


class IdSet:
    """A sorted array of ids. `ids` may repeat."""

    def __init__(self, ids: Iterable[Iterable[str]]) -> None:
        """`ids` comes in batches, so that a generator over a table's columns can fill the set."""
        parts = [_packed(batch) for batch in ids]
        self._ids = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=f"S{WIDTH}")

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        # numpy drops trailing zero bytes when it hands out one item.
        return (bytes(item).ljust(WIDTH, b"\0").hex() for item in self._ids)

    def has(self, ids: Iterable[str]) -> np.ndarray:
        """For each of `ids`, in order, whether it is in the set."""
        wanted = _packed(ids)
        return self._ids[self._spots(wanted)] == wanted if len(self._ids) else np.zeros(len(wanted), dtype=bool)

    def without(self, batches: Iterable[Iterable[str]]) -> IdSet:
        """The ids that are in none of the batches."""
        left = np.ones(len(self._ids), dtype=bool)
        for batch in batches:
            wanted = _packed(batch)
            if len(self._ids) and len(wanted):
                spots = self._spots(wanted)
                left[spots[self._ids[spots] == wanted]] = False
        rest = IdSet(())
        rest._ids = self._ids[left]
        return rest

    def column(self) -> pa.Array:
        return pa.array(list(self), pa.string())

    def _spots(self, wanted: np.ndarray) -> np.ndarray:
        return np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)


def _packed(ids: Iterable[str]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=f"S{WIDTH}")
