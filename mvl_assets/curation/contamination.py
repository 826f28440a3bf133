"""Training rows that evaluation also asks: sources that are benchmarks, and copies of held-out questions.

The paper trains on Video-MME, EgoSchema, MATH-Vision and Design2Code and evaluates on some of them. A hit of kind
`is_benchmark` covers a whole source; `shared_image` is a training row that shows an image of a held-out row among
others; `near_duplicate` is one with the words of a held-out row whose images look the same (equal perceptual hashes
under other bytes). A similar image alone is not a hit: drawings are too alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.sample_facts import compute_fingerprint
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.lake.durability.spill import iter_arrow_batches
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.tables import CONTAMINATION
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.holdout import is_held_out
from mvl_assets.lake_queries.views import iter_current_samples

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
    held_out_fingerprints: dict[str, str] = {}
    held_out_images: dict[str, str] = {}
    for source in sources:
        for sample_id, image_ids, row_fingerprint, is_holdout in _iter_fingerprints(lake, source, holdout_fraction):
            if is_holdout:
                held_out_fingerprints[row_fingerprint] = sample_id
                held_out_images |= dict.fromkeys(image_ids, sample_id)
    hit_counts: dict[str, int] = {}

    def iter_rows() -> Iterator[dict]:
        for source in sources:
            benchmark_names = [b.name for b in source.benchmarks if b.relation == "is_benchmark"]
            for sample_id, image_ids, row_fingerprint, is_holdout in _iter_fingerprints(lake, source, holdout_fraction):
                row_hits: list[tuple[str, str | None, str]] = [(name, None, "is_benchmark") for name in benchmark_names]
                if not is_holdout and row_fingerprint in held_out_fingerprints:
                    row_hits.append(("held_out", held_out_fingerprints[row_fingerprint], "near_duplicate"))
                if not is_holdout and (shared_image_ids := [i for i in image_ids if i in held_out_images]):
                    row_hits.append(("held_out", held_out_images[shared_image_ids[0]], "shared_image"))
                for benchmark, held_out_id, kind in row_hits:
                    hit_counts[kind] = hit_counts.get(kind, 0) + 1
                    yield {
                        "hit_id": compute_digest(sample_id, benchmark, _DIGESTED_KINDS[kind]),
                        "sample_id": sample_id,
                        "source": source.slug,
                        "category": source.category,
                        "benchmark": benchmark,
                        "benchmark_item": held_out_id,
                        "kind": kind,
                        "run_id": run_id,
                    }

    published = lake.get_table("curation/contamination").publish(iter_arrow_batches(iter_rows(), CONTAMINATION.columns))
    return ContaminationReport(hit_counts, published)


def _iter_fingerprints(
    lake: Lake, source: SourceSpec, holdout_fraction: float
) -> Iterator[tuple[str, list[str], str, bool]]:
    """Yield each sample's id, image ids, fingerprint of words and perceptual hashes, and whether it is held out."""
    for batch in iter_batches(
        iter_current_samples(lake, source.slug, ["sample_id", "conversations", "image_ids"]), 512
    ):
        images = lake.images.read_properties([i for row in batch for i in row["image_ids"] or []])
        for row in batch:
            image_ids = row["image_ids"] or []
            image_hashes = [images[i].phash or i for i in image_ids]
            group_id = image_ids[0] if image_ids else row["sample_id"]
            yield (
                row["sample_id"],
                image_ids,
                compute_fingerprint(row["conversations"], image_hashes),
                is_held_out(group_id, holdout_fraction),
            )
