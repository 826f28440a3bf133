"""`mvl status`: per stage, what is materialised and what is stale, with rows and rejects."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import entry_points

import click

from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.common.tables import as_json, format_table
from mvl_assets.config.project_files import describe_project
from mvl_assets.config.settings import load_settings
from mvl_assets.defs.prompts import report_edited_prompts
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.summaries import (
    compute_checkpoint_scores,
    count_by_source,
    count_rejects_by_reason,
    summarize_categories,
)
from mvl_assets.orchestration.asset_status import AssetStatusResolver
from mvl_assets.runner.dagster_home import get_instance, load_code_locations, suppress_dagster_warnings
from mvl_assets.runner.summary import render_keep_rates, render_scores
from mvl_assets.stages import BENCHMARKS, MODEL_STAGES, RAW, STAGE_NAMES


@click.command(name="status")
@click.option("--json", "json_", is_flag=True, help="As one JSON object: stages, evaluation, and more.")
def command(json_: bool) -> None:
    """Show per stage what is materialised and what is stale, with rows and rejects."""
    suppress_dagster_warnings()
    lake = Lake(load_settings().lake_root)
    dagster_instance = get_instance(read_only=True)
    report_edited_prompts(dagster_instance)
    state_counts: dict[str, Counter[str]] = {stage: Counter() for stage in STAGE_NAMES}
    for definitions in load_code_locations().values():
        for status in AssetStatusResolver(definitions.resolve_asset_graph(), dagster_instance).iter_statuses():
            state_counts[status.key.path[0]][status.state] += 1
    rejects = count_rejects_by_reason(lake)
    reasons = {stage: {error: n for (s, error), n in rejects.most_common() if s == stage} for stage in STAGE_NAMES}
    stage_rows = [
        {
            "stage": stage,
            "materialised": state_counts[stage]["fresh"] + state_counts[stage]["stale"],
            "stale": state_counts[stage]["stale"],
            "missing": state_counts[stage]["missing"],
            "rows": _count_rows(lake, stage),
            "rejects": sum(reasons[stage].values()),
            "reject_reasons": reasons[stage],
        }
        for stage in STAGE_NAMES
    ]
    if json_:
        click.echo(as_json({"stages": stage_rows, "evaluation": _list_evaluations(lake)} | _read_plugin_sections(lake)))
        return
    click.echo(describe_project())
    columns = ["stage", "materialised", "stale", "missing", "rows", "rejects"]
    click.echo(format_table(f"lake {lake.root}", columns, [[s[c] for c in columns] for s in stage_rows]))
    if rates := render_keep_rates(summarize_categories(lake)):
        click.echo("\n" + rates + "\n")
    if scores := render_scores(lake):
        click.echo(scores + "\n")
    for stage in MODEL_STAGES:
        if counts := reasons[stage.name]:
            texts = ", ".join(f"{error} {n:,}" for error, n in counts.items())
            click.echo(f"rejects of {stage.name}: {texts} (by source: `mvl rejects --stage {stage.name}`)")
    click.echo("materialised, stale and missing count partitions; `mvl stale` names the stale ones")


def _list_evaluations(lake: Lake) -> list[dict[str, object]]:
    keys = ("checkpoint", "version", "questions", "share_correct", "share_correct_blank", "most_frequent")
    return [dict(zip(keys, scores, strict=True)) for scores in compute_checkpoint_scores(lake)]


def _read_plugin_sections(lake: Lake) -> dict[str, object]:
    """Return what the entry points of the group `mvl.status` say, by their names: this package does not import them."""
    return {entry.name: entry.load()(lake) for entry in entry_points(group="mvl.status")}


def _count_rows(lake: Lake, stage: str) -> int | None:
    if stage in (RAW.name, BENCHMARKS.name):
        counts = count_by_source(lake)[0]
        of_benchmarks = sum(n for source, n in counts.items() if source.startswith(BENCHMARK_PREFIX))
        return of_benchmarks if stage == BENCHMARKS.name else counts.total() - of_benchmarks
    table_names = lake.list_tables(stage)
    return sum(lake.get_table(n).count() for n in table_names) if table_names else None
