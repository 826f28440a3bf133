"""What a run ends with: a short table of what went in and out, losses, scores, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from mvl_assets.common.tables import show
from mvl_assets.config.settings import settings
from mvl_assets.judging.paper_reference import paper_keep_rate
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import STAGES
from mvl_assets.lake_queries.summaries import CategoryLine, category_lines, scores


def summary(instance: dg.DagsterInstance, seconds: Mapping[str, float]) -> str:
    lake = Lake(settings().lake_root)
    parts = [""]
    lines = category_lines(lake)
    parts.append(
        show(
            "Rows by category",
            ["category", "rows in", "rewritten", "kept", "dropped", "most frequent reasons"],
            [
                [
                    line.category,
                    line.rows,
                    line.rewritten or None,
                    line.kept if line.judged else None,
                    line.judged - line.kept if line.judged else None,
                    ", ".join(f"{reason} {n}" for reason, n in line.reasons.most_common(2)),
                ]
                for line in lines
            ],
        )
    )
    if rates := keep_rates(lines):
        parts.append(rates)
    if losses := _losses(instance):
        parts.append(show("Training", ["checkpoint", "steps", "loss first", "loss last"], losses))
    if asked := [list(line) for line in scores(lake)]:
        columns = ["checkpoint", "questions", "true picture", "grey picture", "most frequent answer"]
        parts.append(show("Held-out questions, share correct", columns, asked))
    spent = ", ".join(f"{stage} {s:.0f}" for stage, s in seconds.items() if s >= 0.5)
    parts.append(f"seconds by stage: {spent}; {sum(seconds.values()):.0f} in all")
    rows = (row for name in lake.names("mixture") for row in lake.table(name).rows(["row_id", "kind"]))
    trained = next((row["row_id"] for row in rows if row["kind"] == "rewritten"), None)
    traced = f"`mvl trace {trained[:12]}` shows where a training row came from" if trained else "`mvl trace ID`"
    parts.append(f"next: `make ui` shows the graph and every preview; `mvl status`; {traced}")
    return "\n\n".join(parts)


def keep_rates(lines: Sequence[CategoryLine]) -> str:
    """What the keep rule leaves of each category, beside what the paper's judge left; empty when nothing is judged."""
    rows = [
        [line.category, line.judged, line.kept, line.kept / line.judged, paper_keep_rate(line.category)]
        for line in lines
        if line.judged
    ]
    title = "Share kept (paper: Table A2)"
    return show(title, ["category", "judged", "kept", "share", "paper"], rows) if rows else ""


def _losses(instance: dg.DagsterInstance) -> list[list[object]]:
    rows: list[list[object]] = []
    for stage in STAGES:
        event = instance.get_latest_materialization_event(dg.AssetKey(["checkpoint", stage]))
        if event and event.asset_materialization:
            metadata = event.asset_materialization.metadata
            rows.append([stage, *(_value(metadata.get(k)) for k in ("steps", "loss first", "loss last"))])
    return rows


def _value(entry: object) -> object:
    return getattr(entry, "value", None)
