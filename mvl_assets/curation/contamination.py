"""Rows that evaluation would ask again: sources that are benchmarks themselves, and copies of held-out questions.

The paper trains on Video-MME, EgoSchema, MATH-Vision and Design2Code and evaluates on some of them. A hit by `declared`
relation covers a whole source; a hit by `picture` is a training row that shows a held-out one's picture among others; a
hit by `copy` is one with the words of a held-out row whose pictures look the same (equal perceptual hashes under other
bytes). A like-looking picture alone is no hit: drawings are too alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.curation.duplicates import fingerprint
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import CONTAMINATION
from mvl_assets.lake.spill import batches_of
from mvl_assets.lake.table import Published
from mvl_assets.lake_queries.holdout import is_held_out
from mvl_assets.lake_queries.views import in_batches, samples_now


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """`hits` counts rows by kind."""

    hits: dict[str, int]
    published: Published


def find_contamination(
    lake: Lake, sources: Sequence[SourceSpec], *, holdout: float, run_id: str
) -> ContaminationReport:
    """Writes `curation/contamination` for the newest samples of `sources`."""
    held: dict[str, str] = {}
    shown: dict[str, str] = {}
    for source in sources:
        for sample_id, ids, look, held_out in _looks(lake, source, holdout):
            if held_out:
                held[look] = sample_id
                shown |= dict.fromkeys(ids, sample_id)
    hits: dict[str, int] = {}

    def rows() -> Iterator[dict]:
        for source in sources:
            declared = [b.name for b in source.benchmarks if b.relation == "is_benchmark"]
            for sample_id, ids, look, held_out in _looks(lake, source, holdout):
                found: list[tuple[str, str | None, str]] = [(name, None, "declared") for name in declared]
                if not held_out and look in held:
                    found.append(("held_out", held[look], "copy"))
                if not held_out and (seen := [i for i in ids if i in shown]):
                    found.append(("held_out", shown[seen[0]], "picture"))
                for benchmark, item, kind in found:
                    hits[kind] = hits.get(kind, 0) + 1
                    yield {
                        "hit_id": digest_hex(sample_id, benchmark, kind),
                        "sample_id": sample_id,
                        "source": source.slug,
                        "category": source.category,
                        "benchmark": benchmark,
                        "benchmark_item": item,
                        "kind": kind,
                        "run_id": run_id,
                    }

    published = lake.table("curation/contamination").publish(batches_of(rows(), CONTAMINATION.columns))
    return ContaminationReport(hits, published)


def _looks(lake: Lake, source: SourceSpec, holdout: float) -> Iterator[tuple[str, list[str], str, bool]]:
    """Sample id, its pictures, fingerprint of its words and looks, and whether it is held out."""
    for batch in in_batches(samples_now(lake, source.slug, ["sample_id", "conversations", "image_ids"]), 512):
        pictures = lake.images.describe([i for row in batch for i in row["image_ids"] or []])
        for row in batch:
            ids = row["image_ids"] or []
            looks = [pictures[i].phash or i for i in ids]
            key = ids[0] if ids else row["sample_id"]
            yield row["sample_id"], ids, fingerprint(row["conversations"], looks), is_held_out(key, holdout)
