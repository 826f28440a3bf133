"""Rows with the same text and the same images, within and across sources (the 153 contain each other's copies).

The canonical row, which is kept, is chosen in this order: one of group A or B, since mixtures take no other; the one
that was canonical before; one that was rewritten (it was paid for); the first in the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import DUPLICATES
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.duplicates import ComparedSource, compare_samples


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Result of a comparison."""

    n_compared: int
    n_duplicates: int
    published: PublishResult


def find_duplicates(lake: Lake, sources: Sequence[SourceSpec], *, run_id: str) -> DuplicateReport:
    """Compare the newest samples of all `sources` (in catalog order) and publish `curation/duplicates`."""
    compared_sources = [
        ComparedSource(source.slug, source.category, source.group in ("A", "B"), rank)
        for rank, source in enumerate(sources)
    ]

    def iter_tables(duplicates: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in duplicates:
            with_run = table.append_column("run_id", pa.repeat(pa.scalar(run_id), len(table)))
            yield with_run.select(DUPLICATES.columns.names)

    with compare_samples(lake, compared_sources) as search:
        published = lake.get_table("curation/duplicates").publish(iter_tables(search.iter_duplicates()))
        return DuplicateReport(search.n_compared, published.n_rows, published)
