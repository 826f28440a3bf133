"""`mvl mixture`: how two mixtures differ; and `mvl plan mixture`: what those of a profile would take."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from dataclasses import asdict

import click

from mvl_assets.cli.common_options import add_common_options
from mvl_assets.common.tables import as_json, format_narrow_table
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import list_all_categories
from mvl_assets.config.profile import Profile
from mvl_assets.config.settings import load_settings
from mvl_assets.curation.missed_shares import (
    describe_rewrites,
    describe_total_rewrites,
    list_missed_rewrites,
    list_missed_rows,
)
from mvl_assets.curation.mixing import MixturePlan, open_mixture, plan_mixtures
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.difference import MixtureComparison, PartDifference, Side, open_comparison
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.mixture_page import describe_terms_of

NEWEST = "stored"
SEARCH = "search"
SEARCH_MODULE = "mvl_training.studies.search_cli"
COLUMNS = ["", "wanted", "taken", "orig.", "rewr.", "avail.", "why"]


class MixtureGroup(click.Group):
    """Finds `search` in the training package when it is called: this package does not import that one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), SEARCH]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == SEARCH:
            return add_common_options(importlib.import_module(SEARCH_MODULE).command)
        return super().get_command(ctx, cmd_name)


@click.group(name="mixture", cls=MixtureGroup)
def command() -> None:
    """Compare mixtures, and search for better shares. `mvl plan mixture` shows what the profile's would take."""


@command.command(name="diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--stage",
    type=click.Choice(TRAINING_STAGES),
    default="single_image",
    show_default=True,
    help="The training stage.",
)
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def diff(before: str, after: str, stage: str, json_: bool) -> None:
    """Compare two mixtures of a training stage: shares by category, source and kind, rows gained and lost.

    A and B are profiles (a name or a YAML file: what it would take of the lake as it is), versions of the stored
    mixture (a number), or `stored`, its newest.
    """
    lake = Lake(load_settings().lake_root)
    with open_comparison() as comparison:
        _load_mixture(comparison, "before", lake, before, stage)
        _load_mixture(comparison, "after", lake, after, stage)
        differences = comparison.compute_differences()
    if json_:
        click.echo(as_json([asdict(difference) for difference in differences]))
        return
    _print_differences(differences, before, after, stage)


def _load_mixture(comparison: MixtureComparison, side: Side, lake: Lake, name: str, stage: str) -> None:
    if name == NEWEST or name.isdecimal():
        table = lake.get_table(f"mixture/{stage}")
        if not table.exists():
            raise MvlError(f"there is no mixture {stage}", hint="mvl run --until mixture")
        comparison.load_stored(side, table.snapshot() if name == NEWEST else table.read_version(int(name)))
        return
    profile = asset_keys.load_checked_profile(name)
    groups = asset_keys.list_category_groups(list_all_categories(), profile)
    with open_mixture(lake, profile, [stage], groups) as (pool, fills):
        comparison.load_planned(side, pool.read_selected(fills[stage].quotas))


def _print_differences(differences: Sequence[PartDifference], before: str, after: str, stage: str) -> None:
    totals = sum(d.n_before for d in differences), sum(d.n_after for d in differences)
    rows = [_build_difference_row("all", differences, totals)]
    rows += [
        _build_difference_row(kind, parts, totals)
        for kind in ("original", "rewritten")
        if (parts := [d for d in differences if d.kind == kind])
    ]
    for category in dict.fromkeys(d.category for d in differences):
        parts = [d for d in differences if d.category == category]
        rows.append(_build_difference_row(category, parts, totals))
        for source in dict.fromkeys(d.source for d in parts):
            rows.append(_build_difference_row(f"  {source}", [d for d in parts if d.source == source], totals))
    click.echo(f"{stage}: A is {before}, B is {after}; rewr. is the share of a line's rows that are rewritten")
    columns = ["", "A rows", "B rows", "A share", "B share", "A rewr.", "B rewr.", "gained", "lost"]
    click.echo(format_narrow_table(columns, rows))


def _build_difference_row(label: str, parts: Sequence[PartDifference], totals: tuple[int, int]) -> list[str]:
    counts = sum(d.n_before for d in parts), sum(d.n_after for d in parts)
    rewritten = [d for d in parts if d.kind == "rewritten"]
    n_rewritten = sum(d.n_before for d in rewritten), sum(d.n_after for d in rewritten)
    return [
        label,
        *(f"{n:,}" for n in counts),
        *(_format_share(n, total) for n, total in zip(counts, totals, strict=True)),
        *(_format_share(n, total) for n, total in zip(n_rewritten, counts, strict=True)),
        f"{sum(d.gained for d in parts):,}",
        f"{sum(d.lost for d in parts):,}",
    ]


def _format_share(n_rows: int, total: int) -> str:
    return f"{n_rows / total:.1%}" if total else ""


def print_mixture_plan(profile: Profile, sources: Collection[str], category: str | None, json_: bool) -> None:
    """Print what each training stage would take, and where it misses what the profile wants.

    Args:
        profile: The profile.
        sources: Sources to show; empty for all.
        category: Category to show; None for all.
        json_: Print JSON.
    """
    lake = Lake(load_settings().lake_root)
    groups = asset_keys.list_category_groups(list_all_categories(), profile)
    plans = plan_mixtures(lake, profile, TRAINING_STAGES, groups)
    if json_:
        click.echo(as_json([asdict(plan) for plan in plans]))
        return
    if not any(fill.available for plan in plans for fill in plan.fills):
        click.echo("mixture: there are no rows yet; `mvl run --until judged` makes them")
        return
    for plan in plans:
        if sum(fill.target for fill in plan.fills):
            _print_plan(profile, plan, sources, category)


def _print_plan(profile: Profile, plan: MixturePlan, sources: Collection[str], category: str | None) -> None:
    rows = []
    for fill in plan.fills:
        source_fills = [
            f for f in plan.source_fills if f.category == fill.category and (not sources or f.source in sources)
        ]
        if category not in (None, fill.category) or (sources and not source_fills):
            continue
        n_original = fill.selected - fill.rewritten
        counts = (fill.target, fill.selected, n_original, fill.rewritten, fill.available)
        reasons = [f"{fill.shortfall:,} rows short"] if fill.shortfall > 0 else []
        if rewrites := describe_rewrites(profile.mixture, fill):
            share = f"{fill.rewritten / max(1, fill.selected):.0%} rewritten, not {profile.mixture.rewritten_share:.0%}"
            reasons.append(f"{share}: {rewrites}")
        rows.append([fill.category, *(f"{n:,}" for n in counts), "; ".join(reasons)])
        for source in source_fills:
            n_original = source.selected - source.rewritten
            counts = (source.target, source.selected, n_original, source.rewritten, source.available)
            rows.append([f"  {source.source}", *(f"{n:,}" for n in counts), source.reason])
    if not rows:
        return
    missed = [
        *list_missed_rows(profile.mixture, plan.fills, plan.source_fills),
        *list_missed_rewrites(profile.mixture, plan.fills),
    ]
    click.echo(f"{plan.stage}: {describe_total_rewrites(profile.mixture, plan.fills)}")
    # The last column is text of any length, at the left.
    table = format_narrow_table(COLUMNS[:-1], [row[:-1] for row in rows]).splitlines()
    for line, reason in zip(table, [COLUMNS[-1], *(row[-1] for row in rows)], strict=True):
        click.echo(f"{line}  {reason}".rstrip())
    if missed:
        consequence = "stop what comes after" if profile.mixture.missed_shares == "block" else "warn"
        click.echo(f"shares missed: {len(missed)}; the checks of mixture/{plan.stage} will {consequence}")
    _print_refused(profile, plan, sources, category)
    click.echo("")


def _print_refused(profile: Profile, plan: MixturePlan, sources: Collection[str], category: str | None) -> None:
    """Print what each clause of `where` refuses, over all categories, and what is refused for its licences."""
    clauses = [count for count in plan.clauses if category in (None, count.category)]
    if clauses:
        rows = []
        for clause in dict.fromkeys(count.clause for count in clauses):
            counts = [count for count in clauses if count.clause == clause]
            totals = [sum(getattr(c, name) for c in counts) for name in ("rows", "refused", "refused_alone", "unknown")]
            rows.append([f"  {clause}", *(f"{n:,}" for n in totals)])
        click.echo("where: rows that a clause refuses; for unknown ones a score is null, and they are taken")
        click.echo(format_narrow_table(["", "rows", "refused", "alone", "unknown"], rows))
    unlicensed = [
        refused
        for refused in plan.unlicensed
        if category in (None, refused.category) and (not sources or refused.source in sources)
    ]
    if unlicensed:
        click.echo(f"licences: {sum(refused.rows for refused in unlicensed):,} rows refused")
    for refused in sorted(unlicensed, key=lambda refused: (-refused.rows, refused.source)):
        click.echo(f"  {refused.source}: {refused.rows:,}, {describe_terms_of(refused, profile.licences)}")
