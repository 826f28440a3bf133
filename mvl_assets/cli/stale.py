"""`mvl stale`: list the partitions whose inputs changed since they were materialised, and materialise those again."""

from __future__ import annotations

import click
import dagster as dg

from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.common.tables import as_json, format_table
from mvl_assets.config.catalog import load_catalog
from mvl_assets.defs.prompts import report_edited_prompts
from mvl_assets.errors import MvlError
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.asset_status import AssetStatus, AssetStatusResolver
from mvl_assets.orchestration.dagster_internals import AssetGraph
from mvl_assets.runner.dagster_home import get_instance, load_code_locations, suppress_dagster_warnings

MAX_MISSING_SOURCES = 8


@click.command(name="stale")
@click.argument("assets", nargs=-1, metavar="[ASSET]...")
@click.option("--launch", is_flag=True, help="Materialise them now, one run per partition.")
@click.option("--downstream", is_flag=True, help="With --launch: go on with what becomes stale by that, to the end.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(assets: tuple[str, ...], launch: bool, downstream: bool, json_: bool) -> None:
    """List the stale partitions; --launch materialises exactly those again.

    ASSET is a stage (`rewritten`) or one asset (`rewritten/ocr`); without it, all are checked.
    """
    if downstream and not launch:
        raise click.UsageError("--downstream goes with --launch")
    suppress_dagster_warnings()
    dagster_instance = get_instance(read_only=not launch)
    report_edited_prompts(dagster_instance)
    graphs = [definitions.resolve_asset_graph() for definitions in load_code_locations().values()]
    valid_names = {
        name for graph in graphs for key in graph.get_all_asset_keys() for name in (key.path[0], key.to_user_string())
    }
    if unknown := sorted(set(assets) - valid_names):
        suggestion = format_suggestion(unknown[0], sorted(valid_names))
        raise MvlError(
            f"there is no asset or stage {', '.join(unknown)}", hint=f"{suggestion}`mvl status` lists the stages"
        )
    statuses = _list_statuses(graphs, dagster_instance, assets)
    stale_statuses = [status for status in statuses if status.state == "stale"]
    if json_ and not launch:
        rows = [
            {"asset": s.key.to_user_string(), "partition": s.partition_key, "causes": "; ".join(s.causes)}
            for s in stale_statuses
        ]
        click.echo(as_json(rows))
        return
    click.echo(_format_statuses(stale_statuses, "stale") if stale_statuses else "nothing is stale")
    if missing_sources := _list_missing_sources(statuses):
        n_more = len(missing_sources) - MAX_MISSING_SOURCES
        more = f" and {n_more} more" if n_more > 0 else ""
        click.echo(
            f"not materialised, though there are files: {', '.join(missing_sources[:MAX_MISSING_SOURCES])}{more};"
            " `mvl run` makes what is missing, or says why it cannot"
        )
    if launch and stale_statuses:
        from mvl_assets.runner.pipeline_runner import run_stale

        run_stale(stale_statuses, downstream=downstream)
        remaining_statuses = [s for s in _list_statuses(graphs, dagster_instance, ()) if s.state == "stale"]
        if remaining_statuses:
            click.echo(_format_statuses(remaining_statuses, "still stale"))
            click.echo(
                "`mvl stale --launch --downstream` materialises these and what follows from them, "
                "`mvl run` everything that is missing or stale"
            )


def _list_statuses(
    graphs: list[AssetGraph], dagster_instance: dg.DagsterInstance, assets: tuple[str, ...]
) -> list[AssetStatus]:
    return [
        status
        for graph in graphs
        for status in AssetStatusResolver(graph, dagster_instance).iter_statuses()
        if not assets or status.key.path[0] in assets or status.key.to_user_string() in assets
    ]


def _list_missing_sources(statuses: list[AssetStatus]) -> list[str]:
    """Return the profile's sources that have files and a partition that was never made."""
    missing_slugs = {status.partition_key for status in statuses if status.state == "missing"}
    return [s for s in asset_keys.list_profile_sources() if s in missing_slugs and load_catalog()[s].root.is_dir()]


def _format_statuses(statuses: list[AssetStatus], label: str) -> str:
    rows = [[s.key.to_user_string(), s.partition_key, "; ".join(s.causes)] for s in statuses]
    return format_table(f"{len(rows)} {label}", ["asset", "partition", "causes"], rows, n_name_columns=2)
