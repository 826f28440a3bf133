"""`mvl stale`: the partitions whose inputs changed since they were made, and making exactly those again."""

from __future__ import annotations

import click
import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mvl_assets.common.tables import as_json, show
from mvl_assets.defs.prompts import report_prompts
from mvl_assets.errors import MvlError
from mvl_assets.orchestration.asset_status import Standing, Standings
from mvl_assets.runner.dagster_home import code_locations, instance, quiet_dagster


@click.command(name="stale")
@click.argument("assets", nargs=-1, metavar="[ASSET]...")
@click.option("--launch", is_flag=True, help="Make them again now, as one run per partition.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(assets: tuple[str, ...], launch: bool, json_: bool) -> None:
    """List the partitions that are out of date; --launch makes exactly those again.

    ASSET is a stage (`rewritten`) or one asset (`rewritten/ocr`); without any, all are looked at.
    """
    quiet_dagster()
    dagster_instance = instance()
    report_prompts(dagster_instance)
    graphs = [definitions.resolve_asset_graph() for definitions in code_locations().values()]
    known = {
        name for graph in graphs for key in graph.get_all_asset_keys() for name in (key.path[0], key.to_user_string())
    }
    if unknown := sorted(set(assets) - known):
        raise MvlError(f"there is no asset or stage {', '.join(unknown)}", hint="`mvl status` lists the stages")
    found = _stale(graphs, dagster_instance, assets)
    if json_ and not launch:
        rows = [
            {"asset": s.key.to_user_string(), "partition": s.partition, "because": "; ".join(s.causes)} for s in found
        ]
        click.echo(as_json(rows))
        return
    click.echo(_listed(found, "out of date") if found else "everything that was made is up to date")
    if launch and found:
        from mvl_assets.runner.pipeline_runner import drive_stale

        drive_stale(found)
        if after := _stale(graphs, dagster_instance, ()):
            click.echo(_listed(after, "out of date now"))
            click.echo("`mvl stale --launch` makes these, `mvl run` everything that is missing or out of date")


def _stale(graphs: list[AssetGraph], dagster_instance: dg.DagsterInstance, assets: tuple[str, ...]) -> list[Standing]:
    return [
        standing
        for graph in graphs
        for standing in Standings(graph, dagster_instance).all()
        if standing.state == "stale"
        and (not assets or standing.key.path[0] in assets or standing.key.to_user_string() in assets)
    ]


def _listed(found: list[Standing], words: str) -> str:
    rows = [[s.key.to_user_string(), s.partition, "; ".join(s.causes)] for s in found]
    return show(f"{len(rows)} {words}", ["asset", "partition", "because"], rows)
