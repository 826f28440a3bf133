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

from mvl_assets.common.digest import digest_hex
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import PURGED

PURGED_CLASS = "purged"
"""The reject class of a row, or of a whole source, that is not taken in because it was purged."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What of one source may not be taken in: all of it, or some samples by id or by what they said."""

    source: str
    whole: bool
    sample_ids: frozenset[str]
    said: frozenset[str]

    def __bool__(self) -> bool:
        return self.whole or bool(self.sample_ids)

    def holds(self, sample_id: str, content: Mapping[str, Any], *, is_named: bool) -> bool:
        """`is_named`: the source gives the sample a name of its own."""
        if self.whole or (is_named and sample_id in self.sample_ids):
            return True
        # Earlier versions of this program remembered the content hash, licence included.
        return bool(self.said & {said_hash(content), content["content_hash"]})

    @property
    def reason(self) -> str:
        """For a person who looks at the reject."""
        what = f"source {self.source}" if self.whole else "sample ID"
        return f"was purged; `mvl purge allow {what}` lets it come back"


def purged_of(lake: Lake, source: str) -> Purged:
    rows = list(lake.table(PURGED.name).rows(["sample_id", "content_hash"], sql.equals("source", source)))
    return Purged(
        source,
        whole=any(r["sample_id"] is None for r in rows),
        sample_ids=frozenset(r["sample_id"] for r in rows if r["sample_id"] is not None),
        said=frozenset(r["content_hash"] for r in rows if r["content_hash"] is not None),
    )


def said_hash(content: Mapping[str, Any]) -> str:
    """Digest of a sample's words and pictures. Not of its licence, which the catalog may correct."""
    return digest_hex({name: content[name] for name in ("conversations", "image_ids", "video")})


def remember(lake: Lake, source: str, samples: Iterable[tuple[str | None, str | None]]) -> None:
    """Adds pairs (sample id, `said_hash`) of a source; (None, None) stands for the whole source."""
    now = dt.datetime.now(dt.UTC)
    rows = [
        {
            "purge_id": digest_hex(source, sample_id, content_hash),
            "source": source,
            "sample_id": sample_id,
            "content_hash": content_hash,
            "created_at": now,
        }
        for sample_id, content_hash in samples
    ]
    lake.table(PURGED.name).insert(pa.Table.from_pylist(rows, schema=PURGED.schema))


def allow_source(lake: Lake, source: str) -> bool:
    """Lets a purged source come back; samples of it that were purged one by one stay out. False: it was not purged."""
    return _forget(lake, f"{sql.equals('source', source)} AND sample_id IS NULL")


def allow_samples(lake: Lake, sample_ids: Iterable[str]) -> bool:
    return _forget(lake, sql.within("sample_id", sample_ids))


def _forget(lake: Lake, condition: str) -> bool:
    table = lake.table(PURGED.name)
    found = table.count(condition) > 0
    if found:
        table.delete(condition)
    return found
