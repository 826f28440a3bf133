"""What the page of `scored/<category>` shows: scores beside the paper's, lengths and forms of answers, what to take."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.markdown import embed_image, format_markdown_table
from mvl_assets.orchestration.metadata import render_markdown_table
from mvl_assets.orchestration.share_plot import draw_share_plot

if TYPE_CHECKING:
    from mvl_assets.scoring.summary import ScoreSummary

LENGTH_EDGES = (10, 30, 100, 300, 1000, 3000)
"""Bounds of the groups of lengths, in characters."""
MEASURE_NAMES = {"content": "information content", "relevance": "relevance"}


def build_score_metadata(summaries: Mapping[str, ScoreSummary], source: str) -> dict[str, Any]:
    """Return the metadata of one partition.

    Args:
        summaries: Of all sources in the table.
        source: The source of the partition; without scores there is nothing to show.
    """
    summary = summaries.get(source)
    if summary is None:
        return {}
    return {
        metadata_keys.RECOMMENDATION: summary.recommendation,
        metadata_keys.SCORE_CHANGES: dg.MetadataValue.md(_format_changes(summary)),
        metadata_keys.LENGTHS_AND_KINDS: dg.MetadataValue.md(
            embed_image(draw_lengths_and_kinds(summary), "lengths and forms of answers before and after")
        ),
        metadata_keys.SCORES_BY_SOURCE: render_markdown_table(list_source_scores(summaries)),
    }


def _format_changes(summary: ScoreSummary) -> str:
    from mvl_assets.scoring.paper_reference import PAPER_LOWERED, PAPER_SCORES

    rows = [
        {
            "score": MEASURE_NAMES[measure],
            "original": f"{change.original:.2f}",
            "rewritten": f"{change.rewritten:.2f}",
            "difference ± standard error": f"{change.difference:+.2f}"
            + ("" if change.standard_error is None else f" ± {change.standard_error:.2f}"),
            "paper, all sources": "{} to {}".format(*PAPER_SCORES[measure]),
        }
        for measure, change in summary.changes.items()
    ]
    return f"{format_markdown_table(rows)}\n\n{summary.n_samples:,} samples with both scores. {PAPER_LOWERED}"


def list_source_scores(summaries: Mapping[str, ScoreSummary]) -> list[dict[str, object]]:
    """Return one row per source: samples, each measure before and after, and what to take."""
    return [
        {
            "source": slug,
            "samples": summary.n_samples,
            **{
                measure: f"{summary.changes[measure].original:.2f} to {summary.changes[measure].rewritten:.2f}"
                if measure in summary.changes
                else ""
                for measure in MEASURE_NAMES
            },
            "recommendation": summary.recommendation,
        }
        for slug, summary in summaries.items()
    ]


def draw_lengths_and_kinds(summary: ScoreSummary) -> bytes:
    """Return a PNG with the distributions of lengths and forms of answers, before and after."""
    from mvl_assets.scoring.answer_kinds import ANSWER_KINDS

    length_labels = [f"to {LENGTH_EDGES[0]}", *map(str, LENGTH_EDGES[1:]), f"over {LENGTH_EDGES[-1]}"]
    lengths = {kind: _count_lengths(values) for kind, values in summary.lengths.items()}
    kinds = {kind: [counts[name] for name in ANSWER_KINDS] for kind, counts in summary.answer_kinds.items()}
    return draw_share_plot(
        {
            "characters of the answers": (length_labels, _to_shares(lengths)),
            "form of the first answer": (ANSWER_KINDS, _to_shares(kinds)),
        }
    )


def _count_lengths(lengths: Sequence[int]) -> list[int]:
    counts = [0] * (len(LENGTH_EDGES) + 1)
    for length in lengths:
        counts[bisect.bisect_left(LENGTH_EDGES, length)] += 1
    return counts


def _to_shares(counts: Mapping[str, Sequence[int]]) -> dict[str, list[float]]:
    return {name: [n / max(1, sum(values)) for n in values] for name, values in counts.items()}
