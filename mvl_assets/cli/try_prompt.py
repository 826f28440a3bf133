"""`mvl try`: a prompt at hand on a few rows, as a page to look at. Nothing that was made of the data changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvl_assets.common.tables import format_table
from mvl_assets.config.catalog import get_source
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.prompt_bench.rounds import TriedStage, build_page_path

if TYPE_CHECKING:
    from mvl_assets.prompt_bench.bench import BenchReport

MAX_ROWS = 500
"""A page of more rows is nothing a person looks through."""


@click.group(name="try")
def command() -> None:
    """Ask a few rows with a prompt at hand, and write a page with original, current and new result side by side.

    The same rows every time, so that rounds can be compared; answers are stored, so that a repeat costs nothing, and
    `mvl run` with the same prompt finds them. No table changes.
    """


def _add_options(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option("--source", "slug", required=True, metavar="SLUG", help="The source; one of group B."),
        click.option("--rows", type=click.IntRange(1, MAX_ROWS), default=20, show_default=True, help="How many."),
        click.option("--ids", "ids", metavar="ID,ID", help="Only these rows: ids or beginnings of them."),
        click.option("--seed", default=0, show_default=True, help="Another seed chooses other rows."),
        click.option(
            "--prompt",
            "prompt_file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="A prompt file, wherever it is and whatever its name; else the project's.",
        ),
        click.option("--model", metavar="NAME", help="A model of the profile, instead of the role's."),
        click.option(
            "--out",
            type=click.Path(path_type=Path, dir_okay=False, writable=True),
            help="The page; else a file in MVL_HOME/try.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command.command(name="rewrite")
@_add_options
@click.option("--judge/--no-judge", "judges_rewrites", default=True, show_default=True, help="Judge the new rewrites.")
def try_rewrite(**options: Any) -> None:
    """Rewrite a few samples."""
    from mvl_assets.prompt_bench.bench import run_rewrite_round

    _run_round("rewrite", run_rewrite_round, **options)


@command.command(name="judge")
@_add_options
def try_judge(**options: Any) -> None:
    """Judge a few of the rewrites that the lake has."""
    from mvl_assets.prompt_bench.bench import run_judge_round

    _run_round("judge", run_judge_round, **options)


def _run_round(
    stage: TriedStage,
    run_round: Callable[..., BenchReport],
    *,
    slug: str,
    rows: int,
    ids: str | None,
    seed: int,
    prompt_file: Path | None,
    model: str | None,
    out: Path | None,
    judges_rewrites: bool = True,
) -> None:
    from mvl_assets.prompt_bench.bench import BenchOptions
    from mvl_assets.runner.display import RunDisplay

    settings = load_settings()
    source, profile = get_source(slug), load_profile(settings.profile).copy_with_online_models()
    page_file = out or build_page_path(settings.home, stage, slug)
    if out is None:
        page_file.parent.mkdir(parents=True, exist_ok=True)
    elif not page_file.parent.is_dir():
        raise MvlError(f"--out: {page_file.parent} is not a folder", hint="make it, or name another one")
    display = RunDisplay()
    display.begin_stage(f"try {stage}", 1)
    try:
        report = run_round(
            Lake(settings.lake_root),
            settings.home,
            source,
            profile,
            BenchOptions(
                n_rows=rows,
                id_prefixes=[prefix.strip().lower() for prefix in (ids or "").split(",") if prefix.strip()],
                seed=seed,
                prompt_file=prompt_file,
                model=model,
                judges_rewrites=judges_rewrites,
            ),
            page_file,
            partial(display.report_progress, slug),
        )
    finally:
        display.remove_bars()
    headings, *lines = report.summary
    click.echo(format_table(f"{slug}, by {report.model}", headings, lines))
    requests = report.requests
    cost = f", {report.currency} {report.cost:.4f}" if report.cost else ""
    click.echo(
        f"{requests.attempts_sent:,} requests sent, {requests.cache_hits:,} answered before;"
        f" {requests.prompt_tokens:,} tokens read, {requests.completion_tokens:,} written{cost};"
        f" {report.seconds:.1f} s"
    )
    click.echo(f"page: {page_file}")
