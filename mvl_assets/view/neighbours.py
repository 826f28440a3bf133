"""What is near a pair's sample: its duplicates, pairs of contents that were compared, items of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.duplicate_examples import read_newest_version
from mvl_assets.model_stage.dialogue import strip_markers

MAX_NEIGHBOURS = 8
MAX_IMAGES = 4
MAX_TEXT_CHARS = 1500
_SCORES = (
    "text_overlap",
    "text_containment",
    "question_overlap",
    "question_containment",
    "ngram_overlap",
    "answer_overlap",
    "correlation",
    "block_difference",
    "lost_edges",
)


@dataclass(frozen=True, slots=True)
class NearSample:
    """A sample, or an item of a benchmark, as one side of a comparison shows it.

    Attributes:
        source: Its source.
        text: Its conversation.
        image_ids: Its first `MAX_IMAGES` images.
        n_images: All of its images.
    """

    source: str
    text: str
    image_ids: list[str]
    n_images: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sample that is near another one, or an item of a benchmark.

    Attributes:
        relation: How they belong together.
        scores: How near it is, as names and values.
        sample: The sample or item; None where it is not in the lake.
    """

    relation: str
    scores: list[tuple[str, str]]
    sample: NearSample | None


def read_near_sample(lake: Lake, source: str | None, sample_id: str | None) -> NearSample | None:
    """Return a sample as it is compared; None if it is not in the lake."""
    sample = read_newest_version(lake, source, sample_id) if source and sample_id else None
    if sample is None:
        return None
    turns = sample["conversations"] or ()
    text = "\n\n".join(f"{turn['from']}: {strip_markers(turn['value'] or '')}" for turn in turns)
    image_ids = list(sample["image_ids"] or ())
    return NearSample(sample["source"], text[:MAX_TEXT_CHARS], image_ids[:MAX_IMAGES], len(image_ids))


def read_neighbours(lake: Lake, sample_id: str) -> list[Neighbour]:
    """Return what curation has found near a sample: duplicates, then benchmarks, at most `MAX_NEIGHBOURS`."""
    neighbours = []
    own = sql.equals("sample_id", sample_id)
    condition = f"{own} OR {sql.equals('canonical_sample_id', sample_id)}"
    for duplicate in lake.get_table("curation/duplicates").iter_rows(None, condition):
        is_own = duplicate["sample_id"] == sample_id
        prefix = "canonical_" if is_own else ""
        outcome = "kept instead of this one" if is_own else "left out for this one"
        other = read_near_sample(lake, duplicate[f"{prefix}source"], duplicate[f"{prefix}sample_id"])
        neighbours.append(Neighbour(f"{_write_words(duplicate['rule'])}, {outcome}", _format_scores(duplicate), other))
        if len(neighbours) == MAX_NEIGHBOURS:
            return neighbours
    for hit in lake.get_table("curation/contamination").iter_rows(None, own):
        item = read_near_sample(lake, hit["item_source"], hit["benchmark_item"])
        neighbours.append(Neighbour(_describe_hit(hit), _format_scores(hit), item))
        if len(neighbours) == MAX_NEIGHBOURS:
            break
    return neighbours


def _describe_hit(hit: Mapping[str, Any]) -> str:
    """Return what a sample has in common with an item, and what follows for mixtures."""
    item = f"an item of {hit['benchmark']}" if hit["benchmark"] else "a held-out question"
    if hit["kind"] == "declared":
        item = f"the source belongs to {hit['benchmark']}"
    outcome = "left out of mixtures" if hit["removed"] else "not left out of mixtures"
    allowed = f" ({hit['allowed']})" if hit["allowed"] else ""
    return f"{_write_words(hit['kind'])}: {item}, {outcome}{allowed}"


def _format_scores(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(_write_words(name), f"{row[name]:.2f}") for name in _SCORES if row.get(name) is not None]


def _write_words(name: str) -> str:
    return name.replace("_", " ")
