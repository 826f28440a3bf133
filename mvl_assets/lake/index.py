"""Random access by key: where in a table each key lies, in 24 bytes a row.

Lance protects a key only while no index is built on it, so look-ups by key use this sorted array in memory instead. It
is read again whenever the table has a new version.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mvl_assets.lake.table import Table


class KeyIndex:
    """Offsets of the rows of one table by their 32-hex keys."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._version = -1
        self._keys = np.empty(0, dtype="S16")
        self._offsets = np.empty(0, dtype=np.int64)

    def locate(self, keys: Collection[str]) -> dict[str, int]:
        """Offset by key, for the keys that are stored."""
        self._refresh()
        if not keys or not len(self._keys):
            return {}
        names = list(dict.fromkeys(keys))
        wanted = np.array([bytes.fromhex(n) for n in names], dtype="S16")
        spots = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        found = self._keys[spots] == wanted
        return {n: int(self._offsets[s]) for n, s, ok in zip(names, spots, found, strict=True) if ok}

    def rows(self, keys: Collection[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """The stored rows of `keys`, by key."""
        places = self.locate(keys)
        if not places:
            return {}
        names = list(columns) if columns is not None else self.table.schema.names
        rows = self.table.open().take(list(places.values()), columns=names).to_pylist()
        return dict(zip(places, rows, strict=True))

    def _refresh(self) -> None:
        version = self.table.version
        if version == self._version:
            return
        parts = [
            np.array([bytes.fromhex(k) for k in batch.column(0).to_pylist()], dtype="S16")
            for batch in self.table.scan([self.table.spec.key], batch_size=65536)
        ]
        keys = np.concatenate(parts) if parts else np.empty(0, dtype="S16")
        self._offsets = np.argsort(keys)
        self._keys = keys[self._offsets]
        self._version = version
