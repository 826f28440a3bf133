"""Rows that say the same about the same pictures, within and across sources (the 153 contain each other's copies).

A duplicate has the same pictures *and* the same text. The row that stays is one of groups A and B, since mixtures
take no other; of these the one that stayed before, then one that was rewritten (it was paid for), then the first in the
catalog.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import DUPLICATES
from mvl_assets.lake.spill import batches_of
from mvl_assets.lake.sql import equals
from mvl_assets.lake.table import Published
from mvl_assets.lake_queries.duplicates import FINGERPRINTED, later_equals
from mvl_assets.lake_queries.views import samples_now

_MARKERS = re.compile(r"<image>|<video>")
# Marks inside a word or number, and signs between them, make another text: 3.5 is not 35, and -5 not 5.
_MARKS = re.compile(r"[.,;:!?]+(?=\s|$)")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    compared: int
    duplicates: int
    published: Published


def fingerprint(conversations: Sequence[Mapping[str, Any]], image_ids: Sequence[str]) -> str:
    """Equal for rows with the same pictures in the same order and the same words, whatever their case and spaces and
    the marks behind them."""
    return digest_hex(list(image_ids), [f"{t['from']}:{_plain(t['value'])}" for t in conversations])


def _plain(text: str) -> str:
    return _SPACE.sub(" ", _MARKS.sub("", _MARKERS.sub("", text))).strip().casefold()


def find_duplicates(lake: Lake, sources: Sequence[SourceSpec], *, run_id: str) -> DuplicateReport:
    """Compares the newest samples of all `sources` (in catalog order) and writes `curation/duplicates`."""
    table = lake.table("curation/duplicates")
    kept_before = {row["kept_sample_id"] for row in table.rows(["kept_sample_id"])}
    compared = 0

    def rows() -> Iterator[dict]:
        nonlocal compared
        for order, source in enumerate(sources):
            paid = _rewritten(lake, source)
            for row in samples_now(lake, source.slug, ["sample_id", "conversations", "image_ids"]):
                compared += 1
                standing = 0 if row["sample_id"] in kept_before else 1 if row["sample_id"] in paid else 2
                yield {
                    "fingerprint": fingerprint(row["conversations"], row["image_ids"] or []),
                    "sample_id": row["sample_id"],
                    "source": source.slug,
                    "category": source.category,
                    "rank": order,
                    "standing": standing + (0 if source.group in ("A", "B") else 3),
                }

    found = 0

    def duplicates() -> Iterator[pa.Table]:
        nonlocal found
        for batch in later_equals(batches_of(rows(), FINGERPRINTED)):
            found += len(batch)
            with_run = pa.table(batch).append_column("run_id", pa.array([run_id] * len(batch), pa.string()))
            yield with_run.select(DUPLICATES.columns.names)

    published = table.publish(duplicates())
    return DuplicateReport(compared, found, published)


def _rewritten(lake: Lake, source: SourceSpec) -> set[str]:
    """The samples of a source that have rewrites."""
    table = lake.table(f"rewritten/{source.category}")
    return {row["sample_id"] for row in table.rows(["sample_id"], equals("source", source.slug))}
