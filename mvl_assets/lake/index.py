"""Random access by key: where in a table each key lies, in 24 bytes a row.

Lance protects a key only while no index is built on it, so look-ups by key use this sorted array in memory instead. It
is read again whenever the table has a new version.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import lance
import numpy as np

from mvl_assets.lake.table import Table


@dataclass(frozen=True, slots=True)
class Places:
    """Sorted keys and their row offsets in one version of a table. Offsets mean nothing in another version."""

    dataset: lance.LanceDataset
    keys: np.ndarray
    offsets: np.ndarray

    def of(self, keys: Collection[str]) -> dict[str, int]:
        """Offset by key, for the keys that are stored."""
        if not keys or not len(self.keys):
            return {}
        names = list(dict.fromkeys(keys))
        wanted = np.array([bytes.fromhex(n) for n in names], dtype="S16")
        spots = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = self.keys[spots] == wanted
        return {n: int(self.offsets[s]) for n, s, ok in zip(names, spots, found, strict=True) if ok}


class KeyIndex:
    """Offsets of the rows of one table by their 32-hex keys."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._places: Places | None = None

    def places(self) -> Places | None:
        """The index of the newest version; None for a table that does not exist yet."""
        if not self.table.exists():
            return None
        dataset = self.table.open()
        if self._places is None or self._places.dataset.version != dataset.version:
            self._places = _read(dataset, self.table.spec.key)  # one assignment: threads see the old or the new
        return self._places

    def locate(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` that are stored."""
        places = self.places()
        return set() if places is None else set(places.of(keys))

    def rows(self, keys: Collection[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """The stored rows of `keys`, by key."""
        places = self.places()
        found = {} if places is None else places.of(keys)
        if places is None or not found:
            return {}
        names = list(columns) if columns is not None else self.table.schema.names
        rows = places.dataset.take(list(found.values()), columns=names).to_pylist()
        return dict(zip(found, rows, strict=True))


def _read(dataset: lance.LanceDataset, key: str) -> Places:
    parts = [
        np.array([bytes.fromhex(k) for k in batch.column(0).to_pylist()], dtype="S16")
        for batch in dataset.scanner(columns=[key], batch_size=65536).to_batches()
    ]
    keys = np.concatenate(parts) if parts else np.empty(0, dtype="S16")
    offsets = np.argsort(keys)
    return Places(dataset, keys[offsets], offsets)
