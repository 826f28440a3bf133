"""`mvl batches`: requests that servers have in batches, and giving them up."""

from __future__ import annotations

import click

from mvl_assets.common.tables import as_json, format_table
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.durability.lease import create_lease
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import BATCHES
from mvl_assets.lake.table_sizes import measure_table_sizes


@click.command(name="batches")
@click.option("--source", "slug", metavar="SLUG", help="Only those of this source.")
@click.option("--forget", is_flag=True, help="Give them up: their answers are not stored, their requests sent again.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(slug: str | None, forget: bool, json_: bool) -> None:
    """Show the requests that servers have in batches; `mvl run` waits for them and stores their answers."""
    lake = Lake(load_settings().lake_root)
    entries = []
    for log in _list_logs(lake, slug):
        for batch in log.batches.list_batches():
            entries.append(
                {
                    "stage": log.stage,
                    "source": log.source,
                    "batch": batch.batch_id or "not made yet",
                    "requests": log.batches.count_requests(batch.name),
                    "since": f"{batch.updated_at:%Y-%m-%d %H:%M}",
                    "server": batch.endpoint,
                }
            )
            if forget:
                with create_lease(log.table):  # no run waits for it
                    log.batches.remove(batch.name)
    if json_:
        click.echo(as_json(entries))
    elif entries:
        columns = list(entries[0])
        rows = [[entry[name] for name in columns] for entry in entries]
        click.echo(format_table("requests in batches", columns, rows, n_name_columns=3))
        if forget:
            click.echo("forgotten; the servers may still answer them, and charge for it")
    else:
        click.echo("no request is in a batch")


def _list_logs(lake: Lake, slug: str | None) -> list[AnswerLog]:
    names = [name.split("/")[1:] for name in measure_table_sizes(lake) if name.startswith(f"{BATCHES.name}/")]
    return [lake.get_answer_log(*name) for name in names if slug in (None, name[1])]
