"""Rows with the same text and the same images, within and across sources (the 153 contain each other's copies).

The canonical row, which is kept, is chosen in this order: one of group A or B, since mixtures take no other; the one
that was canonical before; one that was rewritten (it was paid for); the first in the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.common.sample_facts import compute_fingerprint
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.lake.durability.spill import iter_arrow_batches
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.tables import DUPLICATES
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.duplicates import FINGERPRINT_SCHEMA, iter_duplicates, read_rewritten_ids
from mvl_assets.lake_queries.views import iter_current_samples


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Result of a comparison."""

    n_compared: int
    n_duplicates: int
    published: PublishResult


def find_duplicates(lake: Lake, sources: Sequence[SourceSpec], *, run_id: str) -> DuplicateReport:
    """Compare the newest samples of all `sources` (in catalog order) and publish `curation/duplicates`."""
    table = lake.get_table("curation/duplicates")
    previously_kept_ids = {row["canonical_sample_id"] for row in table.iter_rows(["canonical_sample_id"])}
    n_compared = 0

    def iter_rows() -> Iterator[dict]:
        nonlocal n_compared
        for catalog_rank, source in enumerate(sources):
            rewritten_ids = read_rewritten_ids(lake, source.category, source.slug)
            for row in iter_current_samples(lake, source.slug, ["sample_id", "conversations", "image_ids"]):
                n_compared += 1
                keep_priority = (
                    0 if row["sample_id"] in previously_kept_ids else 1 if row["sample_id"] in rewritten_ids else 2
                )
                yield {
                    "fingerprint": compute_fingerprint(row["conversations"], row["image_ids"] or []),
                    "sample_id": row["sample_id"],
                    "source": source.slug,
                    "category": source.category,
                    "rank": catalog_rank,
                    "keep_priority": keep_priority + (0 if source.group in ("A", "B") else 3),
                }

    n_duplicates = 0

    def iter_duplicate_tables() -> Iterator[pa.Table]:
        nonlocal n_duplicates
        for batch in iter_duplicates(iter_arrow_batches(iter_rows(), FINGERPRINT_SCHEMA)):
            n_duplicates += len(batch)
            with_run = pa.table(batch).append_column("run_id", pa.array([run_id] * len(batch), pa.string()))
            yield with_run.select(DUPLICATES.columns.names)

    published = table.publish(iter_duplicate_tables())
    return DuplicateReport(n_compared, n_duplicates, published)
