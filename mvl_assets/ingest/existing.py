"""What the lake already holds of a source: the newest version of each sample, 40 bytes a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mvl_assets.ingest.row_index import WIDTH
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

_COLUMNS = ["sample_id", "content_hash", "revision", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Version:
    """The newest version of one sample."""

    revision: int
    content_hash: str
    withdrawn: bool


class KnownSamples:
    """Sorted arrays over the samples of one source, looked up by id."""

    def __init__(self, lake: Lake, source: str) -> None:
        ids, hashes, revisions, withdrawn = bytearray(), bytearray(), [], []
        for batch in lake.table("samples").scan(_COLUMNS, sql.equals("source", source), 8192):
            columns = batch.to_pydict()
            ids += bytes.fromhex("".join(columns["sample_id"]))
            hashes += bytes.fromhex("".join(columns["content_hash"]))
            revisions.append(np.array(columns["revision"], dtype=np.int32))
            withdrawn.append(np.array(columns["withdrawn"], dtype=bool))
        all_ids = np.frombuffer(bytes(ids), dtype=f"S{WIDTH}")
        all_revisions = np.concatenate(revisions) if revisions else np.empty(0, dtype=np.int32)
        order = np.lexsort((all_revisions, all_ids))
        newest = np.ones(len(order), dtype=bool)
        newest[:-1] = all_ids[order][1:] != all_ids[order][:-1]
        order = order[newest]
        self._ids = all_ids[order]
        self._revisions = all_revisions[order]
        self._withdrawn = np.concatenate(withdrawn)[order] if withdrawn else np.empty(0, dtype=bool)
        self._hashes = np.frombuffer(bytes(hashes), dtype=np.uint8).reshape(-1, WIDTH)[order]

    def find(self, sample_ids: Sequence[str]) -> list[Version | None]:
        """The newest version of each, None for what the lake does not hold."""
        if not len(self._ids):
            return [None] * len(sample_ids)
        wanted = np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=f"S{WIDTH}")
        spots = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        there = self._ids[spots] == wanted
        return [self._version(spot) if found else None for spot, found in zip(spots.tolist(), there, strict=True)]

    def gone(self, present: np.ndarray) -> Iterator[tuple[str, Version]]:
        """The samples in use whose ids are not in `present` (sorted 16-byte ids)."""
        spots = np.searchsorted(present, self._ids)
        there = np.zeros(len(self._ids), dtype=bool)
        inside = spots < len(present)
        there[inside] = present[spots[inside]] == self._ids[inside]
        for spot in np.flatnonzero(~there & ~self._withdrawn):
            yield self._hex(int(spot)), self._version(int(spot))

    def _version(self, spot: int) -> Version:
        return Version(int(self._revisions[spot]), self._hashes[spot].tobytes().hex(), bool(self._withdrawn[spot]))

    def _hex(self, spot: int) -> str:
        # numpy drops trailing zero bytes when it hands out one item.
        return bytes(self._ids[spot]).ljust(WIDTH, b"\0").hex()
