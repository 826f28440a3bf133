"""`mvl purge`: take a source or single samples out of everything that was made of them, for good."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from mvl_assets.common.tables import show
from mvl_assets.config.catalog import load_catalog, source_named
from mvl_assets.config.settings import settings
from mvl_assets.errors import MvlError
from mvl_assets.export.stale_exports import outdated_files
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import STAGES
from mvl_assets.lake_queries.purge import Plan, Purge, samples_named
from mvl_assets.lake_queries.tombstones import allow_samples, allow_source, purged_of


@click.group(name="purge")
def command() -> None:
    """Take a source, or samples, out of every table, with the pictures that nobody else uses.

    The data stays out: the next ingest of the same files rejects it, until `mvl purge allow` lets it back. Killed on
    the way, the same command goes on.
    """


YES = click.option("--yes", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only show what would go.")
KEEP_BYTES = click.option(
    "--keep-bytes",
    is_flag=True,
    help="Take the rows out now and leave their bytes on disk, for a lake that others are reading. The same command "
    "without this removes the bytes.",
)


@command.command(name="source")
@click.argument("slug")
@YES
@DRY_RUN
@KEEP_BYTES
def _source(slug: str, yes: bool, dry_run: bool, keep_bytes: bool) -> None:
    """Take a whole source out."""
    lake = Lake(settings().lake_root)
    if not lake.table("samples").count(sql.equals("source", slug)) and not purged_of(lake, slug):
        source_named(slug)
    _purge(lake, [Purge(lake, slug)], yes, dry_run, keep_bytes, unclaimed=False)


@command.command(name="sample")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--unclaimed", is_flag=True, help="With all answers of their sources that no row refers to any more.")
@YES
@DRY_RUN
@KEEP_BYTES
def _sample(ids: Sequence[str], unclaimed: bool, yes: bool, dry_run: bool, keep_bytes: bool) -> None:
    """Take samples out, with their exact copies in the same source. An ID may be the beginning of one."""
    lake = Lake(settings().lake_root)
    purges = [Purge(lake, source, named) for source, named in samples_named(lake, ids).items()]
    _purge(lake, purges, yes, dry_run, keep_bytes, unclaimed)


@command.group(name="allow")
def _allow() -> None:
    """Let what was purged come back with the next ingest."""


@_allow.command(name="source")
@click.argument("slug")
def _allow_source(slug: str) -> None:
    """Let a whole source come back; samples that were purged one by one stay out."""
    if not allow_source(Lake(settings().lake_root), slug):
        raise MvlError(f"the source {slug!r} is not purged", hint="`mvl purge sample` and `source` purge")
    click.echo(f"{slug} may come back: `mvl run --source {slug}`")


@_allow.command(name="sample")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def _allow_sample(ids: Sequence[str]) -> None:
    """Let samples come back."""
    lake = Lake(settings().lake_root)
    named = samples_named(lake, ids)
    if not allow_samples(lake, [i for some in named.values() for i in some]):
        raise MvlError("none of these samples is purged", hint="`mvl purge sample ID` purges")
    click.echo(f"they may come back: `mvl run {' '.join(f'--source {source}' for source in named)}`")


def _purge(lake: Lake, purges: Sequence[Purge], yes: bool, dry_run: bool, keep_bytes: bool, unclaimed: bool) -> None:
    for purge in purges:
        plan = purge.plan()
        files = list(outdated_files(settings().home / "export", plan.stages, purge.pictures))
        click.echo("\n".join(_lines(lake, purge.source, plan, files)))
        if dry_run:
            continue
        if not yes:
            click.confirm(f"take this out of {lake.root}?", abort=True)
        left = purge.run(keep_bytes=keep_bytes, unclaimed=unclaimed, first=partial(_unlink, files))
        if left.rows or left.pictures:
            raise MvlError(
                f"rows of {purge.source} came in while they were taken out: {', '.join(left.rows)}",
                hint="stop what still works on the source, then run the same command again",
            )
        click.echo(f"{purge.source}: done" + (", the bytes are still on disk" if keep_bytes else ""))
    if not dry_run:
        click.echo("next: `mvl run` makes again what was made with it")


def _unlink(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _lines(lake: Lake, source: str, plan: Plan, files: Sequence[Path]) -> Iterator[str]:
    yield f"{source}: what goes"
    if not plan.rows:
        yield "no row of it is in the lake; it is only kept out from now on"
    else:
        yield show("", ["table", "rows"], [[name, n] for name, n in plan.rows.items()]).strip()
    yield f"pictures: {plan.pictures} go ({plan.picture_bytes:,} bytes), {plan.shared} stay because others use them"
    if plan.copies:
        yield f"{plan.copies} samples say exactly the same in this source and go, too"
    for other, sample_id in plan.elsewhere:
        yield f"an equal sample stays in {other}: {sample_id}"
    if plan.unclaimed:
        yield (
            f"{plan.unclaimed} answers of the source belong to no row (first tries, earlier prompts); some may be "
            "about these samples: --unclaimed takes them all, and those of others may have to be paid for again"
        )
    for folder, number in Counter(str(path.parent) for path in files if path.parent.parent.name != "images").items():
        yield f"exports that go: {number} files in {folder}, and the pictures beside them"
    if plan.stages:
        yield f"to be made again: {', '.join(f'mixture/{s}, pack_plan/{s}' for s in plan.stages)}"
    for stage, words in _trained(lake, plan):
        yield f"not undone: {words}: {stage}"
    if source in load_catalog():
        yield f"left alone: the files in {load_catalog()[source].root}, and previews in Dagster's log of earlier runs"


def _trained(lake: Lake, plan: Plan) -> Iterator[tuple[Path, str]]:
    """The checkpoints whose training rows held the data, or may have."""
    before = False
    for stage in STAGES:
        here = False
        now = lake.table(f"pack_plan/{stage}").data_version()
        for file in sorted((settings().checkpoints / stage).glob("*/result.json")):
            known = json.loads(file.read_text(encoding="utf-8")).get("plan_version") == now
            if known and f"pack_plan/{stage}" in plan.rows:
                yield file.parent, "a checkpoint was trained on it"
            elif before:
                yield file.parent, "a checkpoint that may go back to one of these"
            elif not known:
                yield file.parent, "a checkpoint may have been trained on it (its pack plan is gone)"
            else:
                continue
            here = True
        before = before or here
