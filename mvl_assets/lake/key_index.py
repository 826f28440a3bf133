"""Random access by key: where in a table each key lies, in 24 bytes a row.

Lance protects a key only while no index is built on it, so look-ups by key use sorted arrays in memory instead. They
follow the table's versions: what was appended is read, anything else makes them anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import lance
import numpy as np

from mvl_assets.lake.table import Table

Run = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Places:
    """Row offsets by key in one version of a table. Offsets mean nothing in another version.

    `runs` are sorted (keys, offsets), each at least twice as long as the next, so that a table that grows by many
    small commits costs little more than sorting it once.
    """

    dataset: lance.LanceDataset
    fragments: tuple[tuple[int, int, int], ...]
    runs: tuple[Run, ...]

    def of(self, keys: Collection[str]) -> dict[str, int]:
        """Offset by key, for the keys that are stored, in the order of `keys`."""
        names = list(dict.fromkeys(keys))
        wanted = _packed(names)
        found: dict[int, int] = {}
        for stored, offsets in self.runs:
            spots = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
            for hit in np.flatnonzero(stored[spots] == wanted):
                found[int(hit)] = int(offsets[spots[hit]])
        return {names[hit]: found[hit] for hit in sorted(found)}


class KeyIndex:
    """Offsets of the rows of one table by their 32-hex keys."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._places: Places | None = None

    def locate(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` that are stored."""
        places = self.places()
        return set() if places is None else set(places.of(keys))

    def rows(self, keys: Collection[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """The stored rows of `keys`, by key, in the order of `keys`."""
        places = self.places()
        offsets = {} if places is None else places.of(keys)
        if places is None or not offsets:
            return {}
        names = list(columns) if columns is not None else self.table.schema.names
        rows = places.dataset.take(list(offsets.values()), columns=names).to_pylist()
        return dict(zip(offsets, rows, strict=True))

    def places(self) -> Places | None:
        """The places of the newest version, None for a table that does not exist yet."""
        if not self.table.exists():
            self._places = None
            return None
        newest = self.table.open()
        before = self._places
        if before is not None and before.dataset.version == newest.version:
            return before
        # A handle of its own: the table's moves on to later versions, and these offsets do not.
        dataset = newest.checkout_version(newest.version)
        fragments = dataset.get_fragments()
        listed = _listed(fragments)
        known = len(before.fragments) if before is not None else 0
        runs: tuple[Run, ...] = before.runs if before is not None else ()
        if before is not None and listed[:known] != before.fragments:
            known, runs = 0, ()
        start = sum(rows - gone for _, rows, gone in listed[:known])
        if fragments[known:]:
            scanner = dataset.scanner(columns=[self.table.spec.key], fragments=fragments[known:], batch_size=8192)
            parts = [_packed(batch.column(0).to_pylist()) for batch in scanner.to_batches()]
            keys = np.concatenate(parts) if parts else np.empty(0, dtype="S16")
            runs = _merged(runs, keys, np.arange(start, start + len(keys)))
        self._places = Places(dataset, listed, runs)
        return self._places

    @contextmanager
    def folding(self) -> Iterator[None]:
        """For a compaction by the only writer. Usually it joins the fragments at the end, and every row stays at its
        offset: then nothing has to be read again."""
        before = self.places() if self._places is not None else None
        yield
        self._places = None
        if before is not None:
            dataset = self.table.handle()
            listed = _listed(dataset.get_fragments())
            kept = [fragment for fragment in listed if fragment in before.fragments]
            # What is rewritten goes to the end, also from the middle, where rows were deleted.
            if tuple(kept) == listed[: len(kept)] == before.fragments[: len(kept)]:
                self._places = Places(dataset, listed, before.runs)


def _listed(fragments: Sequence[lance.LanceFragment]) -> tuple[tuple[int, int, int], ...]:
    return tuple((f.fragment_id, f.physical_rows, f.num_deletions) for f in fragments)


def _packed(keys: Sequence[str]) -> np.ndarray:
    """Hex keys as 16 bytes each; one call for all of them costs a fifth of one call for each."""
    return np.frombuffer(bytes.fromhex("".join(keys)), dtype="S16")


def _merged(runs: tuple[Run, ...], keys: np.ndarray, offsets: np.ndarray) -> tuple[Run, ...]:
    while runs and len(runs[-1][0]) < 2 * len(keys):
        *rest, (more_keys, more_offsets) = runs
        runs = tuple(rest)
        keys, offsets = np.concatenate([more_keys, keys]), np.concatenate([more_offsets, offsets])
    if not len(keys):
        return runs
    order = np.argsort(keys, kind="stable")
    return (*runs, (keys[order], offsets[order]))
