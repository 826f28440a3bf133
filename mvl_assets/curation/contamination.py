"""Training rows that evaluation also asks: sources that are benchmarks, and copies of held-out questions.

The paper trains on Video-MME, EgoSchema, MATH-Vision and Design2Code and evaluates on some of them. A hit of kind
`is_benchmark` covers a whole source; `shared_image` is a training row that shows an image of a held-out row among
others; `near_duplicate` is one with the words of a held-out row whose images look the same (equal perceptual hashes
under other bytes). A similar image alone is not a hit: drawings are too alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CONTAMINATION
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.contamination import iter_contaminated
from mvl_assets.lake_queries.holdout import compute_holdout_limit

BATCH_ROWS = 4096
# Hit ids digest these words, which are former names of the kinds, so that the ids stay the same.
_DIGESTED_KINDS = {"is_benchmark": "declared", "near_duplicate": "copy", "shared_image": "picture"}


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """Result of a search; `hit_counts` counts rows by kind."""

    hit_counts: dict[str, int]
    published: PublishResult


def find_contamination(
    lake: Lake, sources: Sequence[SourceSpec], *, holdout_fraction: float, run_id: str
) -> ContaminationReport:
    """Search the newest samples of `sources` and publish `curation/contamination`.

    Args:
        lake: The lake.
        sources: The sources to compare; their order decides which held-out sample a hit names.
        holdout_fraction: The profile's share of samples that only evaluation may use, from 0 to 1.
        run_id: Stored with every hit.
    """
    benchmark_names = {
        source.slug: [b.name for b in source.benchmarks if b.relation == "is_benchmark"] for source in sources
    }
    benchmark_sources = [slug for slug, names in benchmark_names.items() if names]
    holdout_limit = compute_holdout_limit(holdout_fraction)
    categories = {source.slug: source.category for source in sources}
    hit_counts: Counter[str] = Counter()

    def iter_rows() -> Iterator[dict[str, Any]]:
        for hit in iter_contaminated(lake, list(categories), benchmark_sources, holdout_limit):
            kind, slug = hit["kind"], hit["source"]
            for benchmark in benchmark_names[slug] if kind == "is_benchmark" else ["held_out"]:
                hit_counts[kind] += 1
                hit_id = compute_digest(hit["sample_id"], benchmark, _DIGESTED_KINDS[kind])
                yield {**hit, "hit_id": hit_id, "category": categories[slug], "benchmark": benchmark, "run_id": run_id}

    tables = (
        pa.Table.from_pylist(rows, schema=CONTAMINATION.columns) for rows in iter_batches(iter_rows(), BATCH_ROWS)
    )
    published = lake.get_table("curation/contamination").publish(tables)
    return ContaminationReport(dict(hit_counts), published)
