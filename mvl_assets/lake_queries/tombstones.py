"""What was purged and may not come back with the next ingest of the same files: whole sources, and single samples.

A sample is remembered by its id and by what it said. A row that its source gives no name is called by its place, and
places move: of such rows only what they say counts. Nothing of that is kept, only digests.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import TOMBSTONES

PURGED_ERROR_CLASS = "purged"
"""The reject class of a row, or of a whole source, that is not taken in because it was purged."""


@dataclass(frozen=True, slots=True)
class Tombstones:
    """What of one source may not be taken in: all of it, or some samples by id or by what they said."""

    source: str
    is_whole_source: bool
    sample_ids: frozenset[str]
    content_hashes: frozenset[str]

    def __bool__(self) -> bool:
        return self.is_whole_source or bool(self.sample_ids)

    def matches(self, sample_id: str, content: Mapping[str, Any], *, has_native_id: bool) -> bool:
        """`has_native_id`: the source gives the sample a name of its own."""
        if self.is_whole_source or (has_native_id and sample_id in self.sample_ids):
            return True
        # Earlier versions of this program remembered the content hash, licence included.
        return bool(self.content_hashes & {compute_unlicensed_content_hash(content), content["content_hash"]})

    @property
    def reason(self) -> str:
        """For a person who looks at the reject."""
        argument = f"source {self.source}" if self.is_whole_source else "sample ID"
        return f"was purged; `mvl purge allow {argument}` lets it come back"


def load_tombstones(lake: Lake, source: str) -> Tombstones:
    table, source_filter = lake.get_table(TOMBSTONES.name), sql.equals("source", source)
    table.require_known_keys(source_filter)
    rows = list(table.iter_rows(["sample_id", "content_hash"], source_filter))
    return Tombstones(
        source,
        is_whole_source=any(r["sample_id"] is None for r in rows),
        sample_ids=frozenset(r["sample_id"] for r in rows if r["sample_id"] is not None),
        content_hashes=frozenset(r["content_hash"] for r in rows if r["content_hash"] is not None),
    )


def compute_unlicensed_content_hash(content: Mapping[str, Any]) -> str:
    """Digest of a sample's words and pictures. Not of its licence, which the catalog may correct."""
    return compute_digest({name: content[name] for name in ("conversations", "image_ids", "video")})


def add_tombstones(lake: Lake, source: str, entries: Iterable[tuple[str | None, str | None]]) -> None:
    """Adds pairs (sample id, `compute_unlicensed_content_hash`) of a source; (None, None) stands for the whole source."""
    created_at = dt.datetime.now(dt.UTC)
    rows = [
        {
            "purge_id": compute_digest(source, sample_id, content_hash),
            "source": source,
            "sample_id": sample_id,
            "content_hash": content_hash,
            "created_at": created_at,
        }
        for sample_id, content_hash in entries
    ]
    lake.get_table(TOMBSTONES.name).insert(pa.Table.from_pylist(rows, schema=TOMBSTONES.columns))


def allow_source(lake: Lake, source: str) -> bool:
    """Lets a purged source come back; samples of it that were purged one by one stay out. False: it was not purged."""
    return _delete_tombstones(lake, f"{sql.equals('source', source)} AND sample_id IS NULL")


def allow_samples(lake: Lake, sample_ids: Iterable[str]) -> bool:
    return _delete_tombstones(lake, sql.is_in("sample_id", sample_ids))


def _delete_tombstones(lake: Lake, condition: str) -> bool:
    table = lake.get_table(TOMBSTONES.name)
    is_present = table.count(condition) > 0
    if is_present:
        table.delete(condition)
    return is_present
