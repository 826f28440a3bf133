"""`mvl gc`: give back the room of what nothing needs any more."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator

import click

from mvl_assets.common.tables import show
from mvl_assets.config.settings import settings
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.gc import Collected, collect


@click.command(name="gc")
@click.option(
    "--keep-days",
    default=7.0,
    show_default=True,
    type=click.FloatRange(min=0, max=36_500),
    help="Versions of tables younger than this stay: a process may be reading them. With 0 nothing else may run.",
)
@click.option(
    "--rewrite-pictures",
    is_flag=True,
    help="Copy the pictures in use out of files that mostly hold deleted ones; needs the room of the copies meanwhile.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
def command(keep_days: float, rewrite_pictures: bool, dry_run: bool) -> None:
    """Remove pictures no sample refers to, old versions of tables, and what killed runs left.

    Answers that were paid for, and earlier revisions of samples, stay. It may be killed, and run beside everything
    else; on an object store, nothing may be ingested meanwhile.
    """
    if math.isnan(keep_days):
        raise click.BadParameter("nan is no number of days", param_hint="--keep-days")
    lake = Lake(settings().lake_root)
    found = collect(lake, dt.timedelta(days=keep_days), rewrite_pictures=rewrite_pictures, dry_run=dry_run)
    click.echo("\n".join(_lines(lake, found, dry_run)))


def _lines(lake: Lake, found: Collected, dry_run: bool) -> Iterator[str]:
    names = sorted({*found.versions, *found.rewritten})
    if not (names or found.pictures or found.marked_bytes or found.torn or found.scratch or found.busy):
        yield "nothing to remove"
    if names:
        rows = [[n, found.versions.get(n), found.freed.get(n), found.rewritten.get(n)] for n in names]
        title = "would go" if dry_run else "gone"
        yield show(title, ["table", "old versions", "bytes", "fragments rewritten"], rows)
    verb = "would be" if dry_run else "were"
    if found.pictures:
        yield f"{found.pictures} pictures that no sample refers to {verb} deleted ({found.picture_bytes:,} bytes)"
    if found.marked_bytes:
        yield (
            f"{found.marked_bytes:,} bytes of deleted pictures lie in files that hold others too: --rewrite-pictures "
            "frees those that are worth it"
        )
    if found.torn or found.scratch:
        yield f"{found.torn} torn manifests and {found.scratch} folders of dead processes {verb} removed"
    for name, reason in found.busy.items():
        yield f"left out: {name}: {reason}"
    yield f"{lake.root}: {found.before:,} bytes" + ("" if dry_run else f" before, {found.after:,} after")
