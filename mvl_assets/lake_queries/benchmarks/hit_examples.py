"""A few hits on items of benchmarks with the content of both sides, for a page."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.duplicate_examples import read_newest_version

KINDS = ("same_image_same_question", "same_question", "same_image", "near_duplicate", "shared_image", "declared")


@dataclass(frozen=True, slots=True)
class HitExample:
    """A row of `curation/contamination` with the training row and the item that it names, as rows of `samples`.

    `item` is None where the whole source is a benchmark.
    """

    hit: dict[str, Any]
    sample: dict[str, Any]
    item: dict[str, Any] | None


def read_hit_examples(lake: Lake, per_kind: int = 3) -> list[HitExample]:
    """Return the first hits of each kind, without those whose samples are gone."""
    table = lake.get_table("curation/contamination")
    examples = []
    for kind in KINDS:
        for hit in islice(table.iter_rows(filter=sql.equals("kind", kind)), per_kind):
            sample = read_newest_version(lake, hit["source"], hit["sample_id"])
            item = hit["item_source"] and read_newest_version(lake, hit["item_source"], hit["benchmark_item"])
            if sample is not None and (item is not None or hit["item_source"] is None):
                examples.append(HitExample(hit, sample, item or None))
    return examples
