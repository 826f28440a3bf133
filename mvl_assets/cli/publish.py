"""`mvl publish`: bring the mixtures to the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from mvl_assets.cli.export import (
    IMAGES_OPTION,
    SHARD_MB_OPTION,
    build_licence_option,
    iter_refusal_lines,
    list_stages,
)
from mvl_assets.common.licenses import Use
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, ExportResult, choose_executor
from mvl_assets.export.formats.export_format import ExportFormat
from mvl_assets.export.formats.registry import FORMATS, get_format
from mvl_assets.export.row_terms import build_mixture_filter
from mvl_assets.fetch.hub import get_endpoint
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.recorded_exports import record_export
from mvl_assets.publish.errors import PublishError
from mvl_assets.publish.hub_repository import HubRepository, LocalFile
from mvl_assets.publish.prepare import prepare_publication
from mvl_assets.publish.publication import PublicationPlan, list_local_files, plan_publication, send_publication

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - the name of a variable
_REPO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


@click.command(name="publish")
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--format", "format_names", default="parquet", show_default=True, help="Formats, with commas between.")
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(TRAINING_STAGES),
    help="Mixtures to publish; default: all that are there.",
)
@build_licence_option("permissive")
@click.option("--private", is_flag=True, help="Only if the repository is private; a new one is made so.")
@IMAGES_OPTION
@SHARD_MB_OPTION
@click.option("--dry-run", is_flag=True, help="Write the files and show what would be sent, but send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before something becomes public.")
def command(
    repo: str,
    format_names: str,
    stages: tuple[str, ...],
    use: Use,
    private: bool,
    image_form: str,
    shard_mb: int,
    dry_run: bool,
    yes: bool,
) -> None:
    """Publish the mixtures as the data set OWNER/NAME on the hub, with card and Croissant metadata.

    The token is the environment's HF_TOKEN, the hub that of HF_ENDPOINT. The files are written below
    $MVL_HOME/publish first. What the hub has is not sent again, so the same command goes on after a kill, and brings
    the difference after a change.
    """
    if _REPO_NAME.fullmatch(repo) is None:
        raise click.UsageError(f"{repo!r} is no name of a repository: write OWNER/NAME")
    formats = list(dict.fromkeys(get_format(name.strip()) for name in format_names.split(",")))
    settings = load_settings()
    profile, lake = load_profile(settings.profile), Lake(settings.lake_root)
    stage_names = list_stages(lake, stages)
    # A dry run says sizes without a token, too; then nobody asks what the hub has.
    repository = None if dry_run and not os.environ.get(TOKEN_VARIABLE) else _open_repository(repo)
    visibility = None if repository is None else repository.get_visibility()
    if repository is not None and private and visibility == "public":
        raise PublishError(
            f"{repository.url} is public, and --private publishes to a private one only",
            hint="name another repository, make that one private in its settings, or leave --private out",
        )
    folder = ExportFolder(str(settings.publish_dir / repo.replace("/", "--")))
    mixture_filter = build_mixture_filter(lake, profile, stage_names, use)
    options = ExportOptions("shards", image_form, shard_mb * 1_000_000, mixture_filter)  # type: ignore[arg-type]  # click has checked it
    n_rows = 0

    def report_result(format_: ExportFormat, result: ExportResult) -> None:
        nonlocal n_rows
        n_rows += result.rows
        click.echo(f"{format_.name}/{result.name}: {result.rows:,} rows, {result.images:,} images ({image_form})")

    executor = choose_executor(profile.executor, folder)
    prepare_publication(lake, profile, folder, formats, stage_names, options, executor, report_result)
    click.echo("".join(iter_refusal_lines(lake, stage_names, mixture_filter)), nl=False)
    if not n_rows:
        raise PublishError(f"no row may be published for the use {use!r}", hint="see --licence in `mvl publish -h`")
    local_files = list_local_files(folder, [format_.name for format_ in formats])
    hub_files = {} if repository is None or visibility is None else repository.list_files()
    plan = plan_publication(local_files, hub_files, FORMATS)
    is_private = private or visibility == "private"
    state = visibility or f"new, {'private' if is_private else 'public'}"
    heading = (
        f"{repo} (the hub was not asked what it has: there is no {TOKEN_VARIABLE} in the environment)"
        if repository is None
        else f"{repository.url} ({state})"
    )
    kept = [] if repository is None else [f"  there already: {plan.kept:,} files"]
    click.echo("\n".join([heading, *_list_plan_lines(plan), *kept]))
    if dry_run or repository is None or (visibility is not None and not plan.has_changes):
        return
    if not (is_private or yes):
        click.confirm(f"make this public at {repository.url}?", abort=True)
    if visibility is None:
        repository.create(private=private)
    record_export(lake, repository.url, [format_.name for format_ in formats])
    send_publication(repository, plan, _report_commit)
    click.echo(f"published: {repository.url}")


def _open_repository(repo: str) -> HubRepository:
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise PublishError(
            f"there is no {TOKEN_VARIABLE} in the environment",
            hint=f"set it to a token with the right to write to {repo}: {get_endpoint()}/settings/tokens",
        )
    return HubRepository(repo, get_endpoint(), token, _report_wait)


def _list_plan_lines(plan: PublicationPlan) -> list[str]:
    def describe(label: str, files: Sequence[LocalFile]) -> str:
        return f"{label}: {len(files):,} files, {sum(file.size for file in files) / 1e6:,.1f} MB"

    by_format: dict[str, list[LocalFile]] = {}
    for file in plan.data_files:
        by_format.setdefault(Path(file.name).parts[0], []).append(file)
    return [
        *(describe(f"  to send, {name}", files) for name, files in by_format.items()),
        *([describe("  to send, card and metadata", plan.description_files)] if plan.description_files else []),
        *([f"  to delete: {len(plan.deleted_names):,} files of earlier publications"] if plan.deleted_names else []),
    ]


def _report_commit(number: int, n_commits: int, n_bytes: int) -> None:
    click.echo(f"commit {number} of {n_commits}: {n_bytes / 1e6:,.1f} MB")


def _report_wait(seconds: float, problem: str) -> None:
    click.echo(f"the hub {problem}; waiting {seconds:.0f} s", err=True)
