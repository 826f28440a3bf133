"""What is near a pair's sample: its duplicates, pairs of contents that were compared, items of benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

MAX_NEIGHBOURS = 8
MAX_TEXT_CHARS = 1500
_SAMPLE_COLUMNS = ["sample_id", "source", "revision", "conversations", "image_ids"]
_SCORES = ("text_overlap", "text_containment", "correlation", "block_difference", "lost_edges")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sample that is near another one, or an item of a benchmark.

    Attributes:
        relation: How they belong together.
        source: Of the sample.
        text: Its conversation; empty where it is not in the lake.
        image_ids: Its images.
        scores: How near it is.
    """

    relation: str
    source: str
    text: str = ""
    image_ids: list[str] = field(default_factory=list)
    scores: list[tuple[str, str]] = field(default_factory=list)


def read_neighbours(lake: Lake, row: dict[str, Any]) -> list[Neighbour]:
    """Return what curation has sample near a pair's sample, nearest first, at most `MAX_NEIGHBOURS`.

    Args:
        lake: The lake.
        row: The pair's row in the index.
    """
    own = sql.equals("sample_id", row["sample_id"])
    neighbours = []
    duplicates = lake.get_table("curation/duplicates")
    condition = f"{own} OR {sql.equals('canonical_sample_id', row['sample_id'])}"
    for duplicate in duplicates.iter_rows(None, condition):
        is_own = duplicate["sample_id"] == row["sample_id"]
        prefix = "canonical_" if is_own else ""
        outcome = "kept instead of this one" if is_own else "left out for this one"
        relation = f"{duplicate['rule'].replace('_', ' ')}, {outcome}"
        sample = _read_sample(lake, duplicate[f"{prefix}source"], duplicate[f"{prefix}sample_id"])
        neighbours.append(_build_neighbour(relation, duplicate[f"{prefix}source"], sample, duplicate))
        if len(neighbours) == MAX_NEIGHBOURS:
            return neighbours
    for hit in lake.get_table("curation/contamination").iter_rows(None, own):
        item = hit.get("item_id") or hit["benchmark_item"]
        sample = _read_sample(lake, None, item) if item else None
        relation = f"{hit['kind'].replace('_', ' ')} of {hit['benchmark'] or 'a held-out row'}"
        neighbours.append(_build_neighbour(relation, (sample or {}).get("source", ""), sample, hit))
        if len(neighbours) == MAX_NEIGHBOURS:
            break
    return neighbours


def _read_sample(lake: Lake, source: str | None, sample_id: str) -> dict[str, Any] | None:
    rows = lake.get_table("samples").iter_rows(
        _SAMPLE_COLUMNS, sql.equals("sample_id", sample_id), partition_key=source
    )
    return max(rows, key=lambda row: row["revision"], default=None)


def _build_neighbour(relation: str, source: str, sample: dict[str, Any] | None, scores: dict[str, Any]) -> Neighbour:
    turns = (sample or {}).get("conversations") or ()
    text = "\n\n".join(f"{turn['from']}: {turn['value']}" for turn in turns)
    lines = [(name.replace("_", " "), f"{scores[name]:.2f}") for name in _SCORES if scores.get(name) is not None]
    return Neighbour(relation, source, text[:MAX_TEXT_CHARS], list((sample or {}).get("image_ids") or ())[:4], lines)
