"""What the lake already holds of a source: the newest version of each sample, 40 bytes a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mvl_assets.ingest.row_index import ID_BYTES
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

_COLUMNS = ["sample_id", "content_hash", "revision", "withdrawn"]


@dataclass(frozen=True, slots=True)
class SampleVersion:
    """The newest version of one sample."""

    revision: int
    content_hash: str
    withdrawn: bool


class ExistingSamples:
    """Sorted arrays over the samples of one source, looked up by id."""

    def __init__(self, lake: Lake, source: str) -> None:
        table, source_filter = lake.get_table("samples"), sql.equals("source", source)
        table.require_known_keys(source_filter)
        ids, hashes, revisions, withdrawn = bytearray(), bytearray(), [], []
        for batch in table.scan(_COLUMNS, source_filter, 8192):
            columns = batch.to_pydict()
            ids += bytes.fromhex("".join(columns["sample_id"]))
            hashes += bytes.fromhex("".join(columns["content_hash"]))
            revisions.append(np.array(columns["revision"], dtype=np.int32))
            withdrawn.append(np.array(columns["withdrawn"], dtype=bool))
        all_ids = np.frombuffer(bytes(ids), dtype=f"S{ID_BYTES}")
        all_revisions = np.concatenate(revisions) if revisions else np.empty(0, dtype=np.int32)
        order = np.lexsort((all_revisions, all_ids))
        newest = np.ones(len(order), dtype=bool)
        newest[:-1] = all_ids[order][1:] != all_ids[order][:-1]
        order = order[newest]
        self._ids = all_ids[order]
        self._revisions = all_revisions[order]
        self._withdrawn = np.concatenate(withdrawn)[order] if withdrawn else np.empty(0, dtype=bool)
        self._hashes = np.frombuffer(bytes(hashes), dtype=np.uint8).reshape(-1, ID_BYTES)[order]

    def lookup(self, sample_ids: Sequence[str]) -> list[SampleVersion | None]:
        """The newest version of each, None for what the lake does not hold."""
        if not len(self._ids):
            return [None] * len(sample_ids)
        query_ids = np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=f"S{ID_BYTES}")
        positions = np.minimum(np.searchsorted(self._ids, query_ids), len(self._ids) - 1)
        is_present = self._ids[positions] == query_ids
        return [
            self._build_version(position) if is_match else None
            for position, is_match in zip(positions.tolist(), is_present, strict=True)
        ]

    def iter_missing_from(self, present_ids: np.ndarray) -> Iterator[tuple[str, SampleVersion]]:
        """The samples in use whose ids are not in `present_ids` (sorted 16-byte ids)."""
        positions = np.searchsorted(present_ids, self._ids)
        is_present = np.zeros(len(self._ids), dtype=bool)
        in_range = positions < len(present_ids)
        is_present[in_range] = present_ids[positions[in_range]] == self._ids[in_range]
        for position in np.flatnonzero(~is_present & ~self._withdrawn):
            yield self._get_sample_id(int(position)), self._build_version(int(position))

    def _build_version(self, position: int) -> SampleVersion:
        return SampleVersion(
            int(self._revisions[position]), self._hashes[position].tobytes().hex(), bool(self._withdrawn[position])
        )

    def _get_sample_id(self, position: int) -> str:
        # numpy drops trailing zero bytes when it hands out one item.
        return bytes(self._ids[position]).ljust(ID_BYTES, b"\0").hex()
