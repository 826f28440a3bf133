"""`mvl purge`: delete a source or single samples, and everything that was made from them, for good."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import click

from mvl_assets.common.tables import format_table
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import get_source, load_catalog
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.stale_exports import iter_stale_exports
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.purge import Purge, PurgePlan, resolve_sample_ids
from mvl_assets.lake_queries.removal.recorded_exports import list_recorded_exports
from mvl_assets.lake_queries.removal.tombstones import allow_samples, allow_source, load_tombstones
from mvl_assets.prompt_bench.rounds import list_pages


@click.group(name="purge")
def command() -> None:
    """Delete a source, or samples, from every table, with the images that no other sample uses.

    The data stays out: the next ingest of the same files rejects it until `mvl purge allow`. If the command is killed,
    the same command continues.
    """


YES_OPTION = click.option("--yes", is_flag=True, help="Do not ask.")
DRY_RUN_OPTION = click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
NO_RECLAIM_OPTION = click.option(
    "--no-reclaim",
    is_flag=True,
    help="Delete the rows now but leave their bytes on disk, for a lake that others are reading. The same command "
    "without this option frees the bytes.",
)


@command.command(name="source")
@click.argument("slug")
@YES_OPTION
@DRY_RUN_OPTION
@NO_RECLAIM_OPTION
def _purge_source(slug: str, yes: bool, dry_run: bool, no_reclaim: bool) -> None:
    """Delete a whole source."""
    lake = Lake(load_settings().lake_root)
    if not lake.get_table("samples").count(partition_key=slug) and not load_tombstones(lake, slug):
        get_source(slug)
    _run_purges(lake, [Purge(lake, slug)], yes, dry_run, no_reclaim, orphan_answers=False)


@command.command(name="sample")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--orphan-answers", is_flag=True, help="Also delete all answers of their sources that no row refers to any more."
)
@YES_OPTION
@DRY_RUN_OPTION
@NO_RECLAIM_OPTION
def _purge_samples(ids: Sequence[str], orphan_answers: bool, yes: bool, dry_run: bool, no_reclaim: bool) -> None:
    """Delete samples and their exact copies in the same source. An ID may be a unique prefix."""
    lake = Lake(load_settings().lake_root)
    purges = [Purge(lake, source, ids_by_source) for source, ids_by_source in resolve_sample_ids(lake, ids).items()]
    _run_purges(lake, purges, yes, dry_run, no_reclaim, orphan_answers)


@command.group(name="allow")
def _allow() -> None:
    """Let the next ingest take purged data again."""


@_allow.command(name="source")
@click.argument("slug")
def _allow_source(slug: str) -> None:
    """Allow a whole source again; samples that were purged one by one stay out."""
    if not allow_source(Lake(load_settings().lake_root), slug):
        raise MvlError(
            f"the source {slug!r} is not purged",
            hint="only what `mvl purge source` or `mvl purge sample` purged can be allowed",
        )
    click.echo(f"{slug} is allowed again: `mvl run --source {slug}`")


@_allow.command(name="sample")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def _allow_samples(ids: Sequence[str]) -> None:
    """Allow samples again."""
    lake = Lake(load_settings().lake_root)
    ids_by_source = resolve_sample_ids(lake, ids)
    if not allow_samples(lake, [sample_id for sample_ids in ids_by_source.values() for sample_id in sample_ids]):
        raise MvlError("none of these samples is purged", hint="only what `mvl purge sample` purged can be allowed")
    click.echo(f"they are allowed again: `mvl run {' '.join(f'--source {source}' for source in ids_by_source)}`")


def _run_purges(
    lake: Lake, purges: Sequence[Purge], yes: bool, dry_run: bool, no_reclaim: bool, orphan_answers: bool
) -> None:
    for purge in purges:
        plan = purge.plan()
        exports = [
            (folder, list(iter_stale_exports(folder, plan.affected_stages, purge.scope.exclusive_image_ids)))
            for folder in _list_export_folders()
        ]
        click.echo("\n".join(_iter_plan_lines(lake, purge.source, plan, exports)))
        if dry_run:
            continue
        if not yes:
            click.confirm(f"delete this from {lake.root}?", abort=True)
        remaining = purge.run(
            keep_bytes=no_reclaim,
            include_orphan_answers=orphan_answers,
            before_delete=partial(_delete_files, exports, list_pages(load_settings().home, purge.source)),
        )
        if remaining.row_counts or remaining.n_images:
            raise MvlError(
                f"rows of {purge.source} arrived while they were deleted: {', '.join(remaining.row_counts)}",
                hint="stop what still writes rows of the source, then run the same command again",
            )
        click.echo(f"{purge.source}: done" + (", the bytes are still on disk" if no_reclaim else ""))
    if not dry_run:
        click.echo("next: `mvl run` rebuilds what was made from it")


def _list_export_folders() -> list[ExportFolder]:
    """Return the folders that have a folder for each format: that of exports, and what publications were made of."""
    settings = load_settings()
    publications = sorted(settings.publish_dir.iterdir()) if settings.publish_dir.is_dir() else []
    return [ExportFolder(settings.export_root), *(ExportFolder(str(path)) for path in publications)]


def _delete_files(exports: Sequence[tuple[ExportFolder, Sequence[str]]], pages: Sequence[Path]) -> None:
    for folder, names in exports:
        for name in names:
            folder.delete_file(name)
    for page in pages:
        page.unlink(missing_ok=True)


def _iter_plan_lines(
    lake: Lake, source: str, plan: PurgePlan, exports: Sequence[tuple[ExportFolder, Sequence[str]]]
) -> Iterator[str]:
    yield f"{source}: to be deleted"
    if not plan.row_counts:
        yield "the lake has no row of it; it will only be kept out from now on"
    else:
        yield format_table("", ["table", "rows"], [[name, n] for name, n in plan.row_counts.items()]).strip()
    yield (
        f"images: {plan.n_images} go ({plan.image_bytes:,} bytes), {plan.n_shared_images} stay because others use them"
    )
    if plan.n_copies:
        yield f"{plan.n_copies} samples of this source have exactly the same content and go too"
    for other_source, sample_id in plan.duplicates_elsewhere:
        yield f"an equal sample stays in {other_source}: {sample_id}"
    if plan.n_orphan_answers:
        yield (
            f"{plan.n_orphan_answers} answers of the source belong to no row (first tries, earlier prompts); some may "
            "be about these samples: --orphan-answers deletes all of them, and those of others may be paid for again"
        )
    for exported, names in exports:
        folders = [PurePosixPath(name).parent for name in names]
        for folder, n_files in Counter(folder for folder in folders if folder.parent.name != "images").items():
            yield f"exports to delete: {n_files} files in {exported}/{folder}, and their images"
    if plan.row_counts:
        for export in list_recorded_exports(lake):
            yield (
                f"not undone: {export.location} ({export.format}, first written {export.created_at:%Y-%m-%d}) may hold"
                " it: write it again afterwards, or delete it"
            )
    if plan.affected_stages:
        yield f"to be rebuilt: {', '.join(f'mixture/{s}, pack_plan/{s}' for s in plan.affected_stages)}"
    for checkpoint_dir, effect in _iter_affected_checkpoints(lake, plan):
        yield f"not undone: {effect}: {checkpoint_dir}"
    if source in load_catalog():
        yield f"not touched: the files in {load_catalog()[source].root}, and previews in Dagster's log of earlier runs"


def _iter_affected_checkpoints(lake: Lake, plan: PurgePlan) -> Iterator[tuple[Path, str]]:
    """Yield checkpoints whose training rows included the data, or may have, each with the effect in words."""
    lake, follows_affected = lake.get_pipeline_lake(), False
    for stage in TRAINING_STAGES:
        is_stage_affected = False
        names = [name for name in lake.list_tables_with_arms("pack_plan") if name.endswith(f"/{stage}")]
        versions = {name: lake.get_table(name).compute_data_version() for name in names}
        affected_versions = {version for name, version in versions.items() if name in plan.row_counts}
        for result_path in sorted((load_settings().checkpoints_dir / stage).glob("*/result.json")):
            plan_version = json.loads(result_path.read_text(encoding="utf-8")).get("plan_version")
            matches_plan = plan_version in versions.values()
            if plan_version in affected_versions:
                yield result_path.parent, "a checkpoint was trained on it"
            elif follows_affected:
                yield result_path.parent, "a checkpoint that may be trained from one of these"
            elif not matches_plan:
                yield result_path.parent, "a checkpoint may have been trained on it (its pack plan is gone)"
            else:
                continue
            is_stage_affected = True
        follows_affected = follows_affected or is_stage_affected
