"""What the page of `curation/contamination` shows: rows beside the items they touch, counts by source and benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from mvl_assets.common.markdown import escape_cell
from mvl_assets.config.contamination_rules import HIT_KINDS
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.benchmarks.hit_examples import HitExample
from mvl_assets.orchestration.duplicates_page import MAX_BYTES, render_sample
from mvl_assets.orchestration.metadata import render_markdown_table

MAX_NAMES = 40
"""Sources, or benchmarks, that a table shows."""

_SCORES = {
    "correlation": "correlation",
    "question_containment": "question",
    "question_overlap": "words",
    "ngram_overlap": "5-grams",
    "answer_overlap": "answer",
}


def render_hits(lake: Lake, examples: Sequence[HitExample]) -> dg.MetadataValue:
    """Return hits as a table: the training row, the item, and why they are one, with all scores."""
    lines = ["| training row | item | why |", "|---|---|---|"]
    n_bytes = 0
    for example in examples:
        hit = example.hit
        item = "the whole source" if example.item is None else render_sample(lake, example.item, hit["item_image_id"])
        cells = [render_sample(lake, example.sample, hit["image_id"]), item, _render_reason(example)]
        line = f"| {' | '.join(cells)} |"
        n_bytes += len(line.encode())
        if n_bytes > MAX_BYTES:
            break
        lines.append(line)
    return dg.MetadataValue.md("\n".join(lines) if len(lines) > 2 else "none")


def render_hit_counts(counts: Mapping[tuple[str, str], int], column: str) -> dg.MetadataValue:
    """Return a table of counts by name and kind, the names with most hits first."""
    names: dict[str, int] = {}
    for (name, _), n in counts.items():
        names[name] = names.get(name, 0) + n
    return render_markdown_table(
        [
            {
                column: name,
                **{
                    kind.replace("_", " "): f"{counts[name, kind]:,}" if (name, kind) in counts else ""
                    for kind in HIT_KINDS
                    if any(k == kind for _, k in counts)
                },
            }
            for name in sorted(names, key=lambda name: (-names[name], name))[:MAX_NAMES]
        ]
    )


def _render_reason(example: HitExample) -> str:
    hit = example.hit
    scores = [f"{label} {hit[name]:.3g}" for name, label in _SCORES.items() if hit[name] is not None]
    if hit["n_tokens"] is not None:
        scores.append(f"{hit['n_tokens']} tokens")
    end = f"allowed: {hit['allowed']}" if hit["allowed"] else "removed" if hit["removed"] else "stays"
    return escape_cell(", ".join([f"{hit['kind'].replace('_', ' ')} of {hit['benchmark']}", *scores, end]))
