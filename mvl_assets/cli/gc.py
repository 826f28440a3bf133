"""`mvl gc`: free the disk space of data that nothing uses any more."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator

import click

from mvl_assets.common.tables import format_table
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.gc import GcReport, collect_garbage


@click.command(name="gc")
@click.option(
    "--keep-days",
    default=7.0,
    show_default=True,
    type=click.FloatRange(min=0, max=36_500),
    help="Keep table versions younger than this: a process may be reading them. With 0 nothing else may run.",
)
@click.option(
    "--compact-images",
    is_flag=True,
    help="Copy the images in use out of files that mostly hold deleted ones; needs disk space for the copies.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
def command(keep_days: float, compact_images: bool, dry_run: bool) -> None:
    """Remove images that no sample refers to, old table versions, and leftovers of killed runs.

    Answers and earlier revisions of samples are kept. The command may be killed, and may run at the same time as any
    other.
    """
    if math.isnan(keep_days):
        raise click.BadParameter("nan is not a number of days", param_hint="--keep-days")
    lake = Lake(load_settings().lake_root)
    report = collect_garbage(lake, dt.timedelta(days=keep_days), compact_images=compact_images, dry_run=dry_run)
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
            [
                n,
                report.n_expired_versions.get(n),
                _to_megabytes(report.reclaimed_bytes.get(n)),
                report.n_compacted_fragments.get(n),
            ]
            for n in names
        ]
        title = "would be removed" if dry_run else "removed"
        yield format_table(title, ["table", "old versions", "MB", "fragments rewritten"], rows)
    verb = "would be" if dry_run else "were"
    if report.n_images:
        size = _to_megabytes(report.image_bytes)
        yield f"{report.n_images} images that no sample refers to {verb} deleted ({size} MB)"
    if report.reclaimable_bytes:
        yield (
            f"{_to_megabytes(report.reclaimable_bytes)} MB of deleted images are in files that also hold others: "
            "--compact-images frees them where that is worth the copying"
        )
    if report.n_torn_manifests or report.n_scratch_dirs:
        leftovers = f"{report.n_torn_manifests} torn manifests and {report.n_scratch_dirs} folders of ended processes"
        yield f"{leftovers} {verb} removed"
    for name, reason in report.skipped.items():
        yield f"skipped: {name}: {reason}"
    yield f"{lake.root}: {_to_megabytes(report.lake_bytes_before)} MB" + (
        "" if dry_run else f" before, {_to_megabytes(report.lake_bytes_after)} after"
    )


def _to_megabytes(n_bytes: int | None) -> str | None:
    return None if n_bytes is None else f"{n_bytes / 1e6:,.1f}"
