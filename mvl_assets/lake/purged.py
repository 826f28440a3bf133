"""What was purged and may not come back with the next ingest of the same files: whole sources, and single samples.

A sample is remembered by its id and by its content, because a row that its source gives no name is called by its place,
and places move. Nothing of what it said is kept, only digests.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.lake import sql
from mvl_assets.lake.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import PURGED

PURGED_CLASS = "purged"
"""The reject class of a row, or of a whole source, that is not taken in because it was purged."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What of one source may not be taken in: all of it, or some samples by id or content hash."""

    source: str
    whole: bool
    sample_ids: frozenset[str]
    content_hashes: frozenset[str]

    def __bool__(self) -> bool:
        return self.whole or bool(self.sample_ids)

    def holds(self, sample_id: str, content_hash: object) -> bool:
        return self.whole or sample_id in self.sample_ids or content_hash in self.content_hashes

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
        content_hashes=frozenset(r["content_hash"] for r in rows if r["content_hash"] is not None),
    )


def remember(lake: Lake, source: str, samples: Iterable[tuple[str | None, str | None]]) -> None:
    """Adds (sample id, content hash) pairs of a source; (None, None) stands for the whole source."""
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
