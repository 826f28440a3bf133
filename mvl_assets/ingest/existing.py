"""The newest version of each sample of a source that is already in the lake, at 41 bytes per sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from mvl_assets.common.id_array import ID_BYTES, ID_DTYPE, find_ids, pack_ids, unpack_id
from mvl_assets.lake.lake import Lake

_COLUMNS = ["sample_id", "content_hash", "revision", "withdrawn"]


class SampleVersion(msgspec.Struct, frozen=True, gc=False):
    """The newest version of one sample; a withdrawn sample is no longer in the source's files."""

    revision: int
    content_hash: str
    withdrawn: bool


class ExistingSamples:
    """Sorted arrays over the samples of one source, searched by id."""

    def __init__(self, lake: Lake, source: str) -> None:
        table = lake.get_table("samples")
        table.require_known_keys(partition_key=source)
        ids, hashes, revisions, withdrawn = bytearray(), bytearray(), [], []
        for batch in table.scan(_COLUMNS, None, 8192, partition_key=source):
            columns = batch.to_pydict()
            ids += bytes.fromhex("".join(columns["sample_id"]))
            hashes += bytes.fromhex("".join(columns["content_hash"]))
            revisions.append(np.array(columns["revision"], dtype=np.int32))
            withdrawn.append(np.array(columns["withdrawn"], dtype=bool))
        all_ids = np.frombuffer(bytes(ids), dtype=ID_DTYPE)
        all_revisions = np.concatenate(revisions) if revisions else np.empty(0, dtype=np.int32)
        order = np.lexsort((all_revisions, all_ids))
        newest = np.ones(len(order), dtype=bool)
        newest[:-1] = all_ids[order][1:] != all_ids[order][:-1]
        order = order[newest]
        self._ids = all_ids[order]
        self._revisions = all_revisions[order]
        self._withdrawn = np.concatenate(withdrawn)[order] if withdrawn else np.empty(0, dtype=bool)
        self._hashes = np.frombuffer(bytes(hashes), dtype=np.uint8).reshape(-1, ID_BYTES)[order]
        self._present = np.zeros(len(order), dtype=bool)

    def mark_present(self, sample_ids: Sequence[str], *, is_present: bool = True) -> None:
        """Note that the source's files have these samples (or have not, after all); others do not count."""
        if len(self._ids) and sample_ids:
            positions, is_known = find_ids(self._ids, pack_ids(sample_ids))
            self._present[positions[is_known]] = is_present

    def lookup(self, sample_ids: Sequence[str]) -> list[SampleVersion | None]:
        """Return the newest version of each sample, None where the lake has none."""
        if not len(self._ids):
            return [None] * len(sample_ids)
        positions, is_present = find_ids(self._ids, pack_ids(sample_ids))
        return [
            self._build_version(position) if is_match else None
            for position, is_match in zip(positions.tolist(), is_present, strict=True)
        ]

    def iter_missing(self) -> Iterator[tuple[str, SampleVersion]]:
        """Yield the samples in use that were not marked as present."""
        for position in np.flatnonzero(~self._present & ~self._withdrawn).tolist():
            yield unpack_id(self._ids[position]), self._build_version(position)

    def _build_version(self, position: int) -> SampleVersion:
        return SampleVersion(
            int(self._revisions[position]), self._hashes[position].tobytes().hex(), bool(self._withdrawn[position])
        )
