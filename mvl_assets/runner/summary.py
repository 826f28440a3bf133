"""The summary that a run ends with: rows in and out, losses, scores, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.tables import format_table
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import PAPER_KEEP_RULE
from mvl_assets.config.settings import load_settings
from mvl_assets.judging.paper_reference import get_paper_keep_rate
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.summaries import CategorySummary, compute_checkpoint_scores, summarize_categories
from mvl_assets.orchestration.score_metadata import list_source_scores
from mvl_assets.scoring.paper_reference import PAPER_SCORES
from mvl_assets.scoring.summary import ScoreSummary, summarize_scores
from mvl_assets.stages import CATEGORY, CHECKPOINT, EVALUATION, EXPORT, JUDGED, MIXTURE, REWRITTEN, SCORED

_LOSS_KEYS = (metadata_keys.STEPS, metadata_keys.LOSS_FIRST, metadata_keys.LOSS_LAST)
_REWRITE_KEYS = (
    metadata_keys.REWRITES_KEPT,
    metadata_keys.REWRITES_OUTDATED,
    metadata_keys.REWRITES_HELD_OUT,
    metadata_keys.REWRITES_EXCLUDED,
    metadata_keys.REWRITES_TAKEN,
    metadata_keys.ROW_COUNT,
    metadata_keys.REWRITTEN_SHARE,
    metadata_keys.REWRITTEN_SHARE_TARGET,
)


def render_summary(instance: dg.DagsterInstance, seconds_by_stage: Mapping[str, float]) -> str:
    """Return the summary as text for a terminal.

    Args:
        instance: Dagster's record of what was made.
        seconds_by_stage: Of the stages that the run had, which alone are shown.
    """
    lake = Lake(load_settings().lake_root)
    sections = [""]
    if {CATEGORY.name, REWRITTEN.name, JUDGED.name} & seconds_by_stage.keys():
        category_summaries = summarize_categories(lake)
        sections.append(_render_categories(category_summaries))
        if JUDGED.name in seconds_by_stage and (rates := render_keep_rates(category_summaries)):
            sections.append(rates)
    if SCORED.name in seconds_by_stage and (scores := render_scores(lake)):
        sections.append(scores)
    if MIXTURE.name in seconds_by_stage and (mixed := _read_metadata_rows(instance, MIXTURE.name, _REWRITE_KEYS)):
        columns = [
            "mixture",
            "kept",
            "outdated",
            "held out",
            "duplicate or benchmark",
            "taken",
            "all rows",
            "share",
            "wanted",
        ]
        sections.append(format_table("Kept rewrites in the mixtures", columns, mixed))
    if CHECKPOINT.name in seconds_by_stage and (losses := _read_metadata_rows(instance, CHECKPOINT.name, _LOSS_KEYS)):
        sections.append(format_table("Training", ["checkpoint", "steps", "loss first", "loss last"], losses))
    if EVALUATION.name in seconds_by_stage and (score_rows := _list_score_rows(lake)):
        columns = ["checkpoint", "version", "questions", "true image", "blank image", "most frequent answer"]
        sections.append(format_table("Held-out questions, share correct", columns, score_rows))
    if EXPORT.name in seconds_by_stage:
        sections.append(f"exports: {load_settings().export_root}; `mvl export -h` names other formats")
    stage_times = ", ".join(f"{stage} {s:.0f}" for stage, s in seconds_by_stage.items() if s >= 0.5)
    sections.append(f"seconds by stage: {stage_times}; {sum(seconds_by_stage.values()):.0f} in all")
    rows = (row for name in lake.list_tables("mixture") for row in lake.get_table(name).iter_rows(["row_id", "kind"]))
    rewritten_row_id = next((row["row_id"] for row in rows if row["kind"] == "rewritten"), None)
    trace_hint = (
        f"`mvl trace {rewritten_row_id[:12]}` shows where a training row came from"
        if rewritten_row_id
        else "`mvl trace ID`"
    )
    sections.append(f"next: `mvl ui` shows the graph and every preview; `mvl status`; {trace_hint}")
    return "\n\n".join(sections)


def _render_categories(category_summaries: Sequence[CategorySummary]) -> str:
    return format_table(
        "Rows by category",
        ["category", "rows in", "rewritten", "kept", "dropped", "most frequent reasons"],
        [
            [
                summary.category,
                summary.n_samples,
                summary.n_rewritten or None,
                summary.n_kept if summary.n_judged else None,
                summary.n_judged - summary.n_kept if summary.n_judged else None,
                ", ".join(f"{reason} {n}" for reason, n in summary.drop_reasons.most_common(2)),
            ]
            for summary in category_summaries
        ],
    )


def render_keep_rates(category_summaries: Sequence[CategorySummary]) -> str:
    """Return the share kept of each category; empty when nothing is judged.

    The paper's share stands beside it where its rule was applied to all pairs: another rule keeps other pairs.
    """
    rows = [
        [
            summary.category,
            summary.n_judged,
            summary.n_kept,
            summary.n_kept / summary.n_judged,
            get_paper_keep_rate(summary.category) if summary.keep_rules == {PAPER_KEEP_RULE} else None,
        ]
        for summary in category_summaries
        if summary.n_judged
    ]
    if not rows:
        return ""
    table = format_table("Share kept (paper: Table A2)", ["category", "judged", "kept", "share", "paper"], rows)
    has_other_rule = any(summary.keep_rules != {PAPER_KEEP_RULE} for summary in category_summaries if summary.n_judged)
    note = f"\nthe paper's share is that of its own rule, {PAPER_KEEP_RULE}; no other one is comparable"
    return table + (note if has_other_rule else "")


def render_scores(lake: Lake) -> str:
    """Return the scores of each source before and after rewriting; empty when nothing is scored."""
    summaries: dict[str, ScoreSummary] = {}
    for name in lake.list_tables(SCORED.name):
        summaries |= summarize_scores(lake.get_table(name))
    rows = list_source_scores(summaries)
    (content, relevance) = ("{} to {}".format(*PAPER_SCORES[measure]) for measure in ("content", "relevance"))
    title = f"Scores before and after rewriting (paper: content {content}, relevance {relevance})"
    return format_table(title, list(rows[0]), [list(row.values()) for row in rows]) if rows else ""


def _list_score_rows(lake: Lake) -> list[list[object]]:
    return [[name, version[:8], *scores] for name, version, *scores in compute_checkpoint_scores(lake)]


def _read_metadata_rows(instance: dg.DagsterInstance, prefix: str, keys: Sequence[str]) -> list[list[object]]:
    """Return the values of `<prefix>/<training stage>` for each stage whose last materialization has the first key."""
    rows: list[list[object]] = []
    for stage in TRAINING_STAGES:
        event = instance.get_latest_materialization_event(dg.AssetKey([prefix, stage]))
        metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
        if keys[0] in metadata:
            rows.append([stage, *(_get_metadata_value(metadata.get(key)) for key in keys)])
    return rows


def _get_metadata_value(entry: object) -> object:
    return getattr(entry, "value", None)
