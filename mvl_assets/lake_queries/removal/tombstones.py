"""Tombstones: purged sources and samples, which may not come back with the next ingest of the same files.

A sample is remembered by its id and by its content. A row without a native id is identified by its position, which may
change: for such rows only the content counts. Tombstones hold digests only.
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
from mvl_assets.lake.schemas.data_tables import TOMBSTONES

PURGED_ERROR_CLASS = "purged"
"""Error class of rejects for rows, or whole sources, that were purged."""


@dataclass(frozen=True, slots=True)
class Tombstones:
    """Data of one source that may not be ingested: all of it, or samples with one of these ids or contents."""

    source: str
    is_whole_source: bool
    sample_ids: frozenset[str]
    content_hashes: frozenset[str]

    def __bool__(self) -> bool:
        return self.is_whole_source or bool(self.sample_ids)

    def matches(self, sample_id: str, content: Mapping[str, Any], *, has_native_id: bool) -> bool:
        """Return whether a sample may not be ingested.

        Args:
            sample_id: Its id.
            content: Its conversations, image_ids and video.
            has_native_id: Whether the source gives it an id, so that `sample_id` identifies it.
        """
        if self.is_whole_source or (has_native_id and sample_id in self.sample_ids):
            return True
        return compute_unlicensed_content_hash(content) in self.content_hashes

    @property
    def reason(self) -> str:
        """Message of the reject."""
        argument = f"source {self.source}" if self.is_whole_source else "sample ID"
        return f"was purged; `mvl purge allow {argument}` lets it come back"


def load_tombstones(lake: Lake, source: str) -> Tombstones:
    """Read the tombstones of a source. Raises `UnknownKeyScheme` if their ids were made by another scheme."""
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
    """Return the digest of a sample's text and images, without its licence, which the catalog may correct."""
    return compute_digest({name: content[name] for name in ("conversations", "image_ids", "video")})


def add_tombstones(lake: Lake, source: str, entries: Iterable[tuple[str | None, str | None]]) -> None:
    """Add pairs of sample id and `compute_unlicensed_content_hash`; (None, None) means the whole source."""
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
    """Let a purged source come back; return whether it was purged. Samples that were purged individually stay out."""
    return _delete_tombstones(lake, f"{sql.equals('source', source)} AND sample_id IS NULL")


def allow_samples(lake: Lake, sample_ids: Iterable[str]) -> bool:
    """Let purged samples come back; return whether any of them was purged."""
    return _delete_tombstones(lake, sql.is_in("sample_id", sample_ids))


def _delete_tombstones(lake: Lake, condition: str) -> bool:
    table = lake.get_table(TOMBSTONES.name)
    is_present = table.count(condition) > 0
    if is_present:
        table.delete(condition)
    return is_present
