"""`mvl status`: per stage what is materialised and what is out of date, with the rows behind it."""

from __future__ import annotations

from collections import Counter

import click

from mvl_assets.common.tables import as_json, show
from mvl_assets.config.settings import settings
from mvl_assets.defs.prompts import report_prompts
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.summaries import category_lines, counts_by_source, rejects_by_stage
from mvl_assets.orchestration.asset_status import Standings
from mvl_assets.runner.dagster_home import code_locations, instance, quiet_dagster
from mvl_assets.runner.pipeline_runner import STAGES
from mvl_assets.runner.summary import keep_rates

REJECTING = {"raw": "raw", "rewritten": "rewrite", "judged": "judge"}


@click.command(name="status")
@click.option("--json", "json_", is_flag=True, help="As JSON, one object per stage.")
def command(json_: bool) -> None:
    """Per stage: what is materialised, what is out of date, rows and rejects."""
    quiet_dagster()
    lake = Lake(settings().lake_root)
    dagster_instance = instance()
    report_prompts(dagster_instance)
    states: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
    for definitions in code_locations().values():
        for standing in Standings(definitions.resolve_asset_graph(), dagster_instance).all():
            states[standing.key.path[0]][standing.state] += 1
    rejects = rejects_by_stage(lake)
    listed = [
        {
            "stage": stage,
            "materialised": states[stage]["fresh"] + states[stage]["stale"],
            "stale": states[stage]["stale"],
            "missing": states[stage]["missing"],
            "rows": _rows(lake, stage),
            "rejects": rejects[REJECTING.get(stage, stage)],
        }
        for stage in STAGES
    ]
    if json_:
        click.echo(as_json(listed))
        return
    columns = ["stage", "materialised", "stale", "missing", "rows", "rejects"]
    click.echo(show(f"lake {lake.root}", columns, [[s[c] for c in columns] for s in listed]))
    if rates := keep_rates(category_lines(lake)):
        click.echo("\n" + rates + "\n")
    click.echo("materialised, stale and missing count partitions; `mvl stale` names the stale ones")


def _rows(lake: Lake, stage: str) -> int | None:
    if stage == "raw":
        return counts_by_source(lake)[0].total()
    names = lake.names(stage)
    return sum(lake.table(n).count() for n in names) if names else None
