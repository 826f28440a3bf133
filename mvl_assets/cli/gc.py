"""`mvl gc`: give back the room of what nothing needs any more."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator

import click

from mvl_assets.common.tables import format_table
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.gc import GcReport, collect_garbage


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
    lake = Lake(load_settings().lake_root)
    report = collect_garbage(lake, dt.timedelta(days=keep_days), compact_images=rewrite_pictures, dry_run=dry_run)
    click.echo("\n".join(_iter_report_lines(lake, report, dry_run)))


def _iter_report_lines(lake: Lake, report: GcReport, dry_run: bool) -> Iterator[str]:
    names = sorted({*report.n_expired_versions, *report.n_compacted_fragments})
    if not (
        names
        or report.n_images
        or report.reclaimable_bytes
        or report.n_torn_manifests
        or report.n_scratch_dirs
        or report.skipped
    ):
        yield "nothing to remove"
    if names:
        rows = [
            [n, report.n_expired_versions.get(n), report.reclaimed_bytes.get(n), report.n_compacted_fragments.get(n)]
            for n in names
        ]
        title = "would go" if dry_run else "gone"
        yield format_table(title, ["table", "old versions", "bytes", "fragments rewritten"], rows)
    verb = "would be" if dry_run else "were"
    if report.n_images:
        yield f"{report.n_images} pictures that no sample refers to {verb} deleted ({report.image_bytes:,} bytes)"
    if report.reclaimable_bytes:
        yield (
            f"{report.reclaimable_bytes:,} bytes of deleted pictures lie in files that hold others too: --rewrite-pictures "
            "frees those that are worth it"
        )
    if report.n_torn_manifests or report.n_scratch_dirs:
        yield f"{report.n_torn_manifests} torn manifests and {report.n_scratch_dirs} folders of dead processes {verb} removed"
    for name, reason in report.skipped.items():
        yield f"left out: {name}: {reason}"
    yield f"{lake.root}: {report.lake_bytes_before:,} bytes" + (
        "" if dry_run else f" before, {report.lake_bytes_after:,} after"
    )
