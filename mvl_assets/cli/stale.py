"""`mvl stale`: the partitions whose inputs changed since they were made, and backfilling exactly those."""

from __future__ import annotations

import click

from mvl_assets.cli.dagster_home import code_locations, instance, quiet_dagster
from mvl_assets.cli.staleness import Standings
from mvl_assets.cli.tables import as_json, show
from mvl_assets.defs.prompts import report_prompts


@click.command(name="stale")
@click.option("--launch", is_flag=True, help="Make them again now, as one run per partition.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(launch: bool, json_: bool) -> None:
    """List the partitions that are out of date; --launch makes exactly those again."""
    quiet_dagster()
    dagster_instance = instance()
    report_prompts(dagster_instance)
    found = [
        standing
        for definitions in code_locations().values()
        for standing in Standings(definitions, dagster_instance).all()
        if standing.state == "stale"
    ]
    if launch:
        from mvl_assets.cli.run import drive_stale

        drive_stale(found)
        return
    rows = [{"asset": s.key.to_user_string(), "partition": s.partition, "because": "; ".join(s.causes)} for s in found]
    if json_:
        click.echo(as_json(rows))
    elif rows:
        click.echo(
            show(f"{len(rows)} out of date", ["asset", "partition", "because"], [list(r.values()) for r in rows])
        )
    else:
        click.echo("everything that was made is up to date")
