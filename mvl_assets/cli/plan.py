"""`mvl plan`: what a stage would fetch or send, and what it would cost, before anything moves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import click

from mvl_assets.common.tables import as_json, show
from mvl_assets.config.catalog import CATEGORIES, SourceSpec, source_named
from mvl_assets.config.profile import Profile
from mvl_assets.config.settings import settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.lock import read_lock
from mvl_assets.fetch.plan import IngestPlan, plan_ingest, total
from mvl_assets.fetch.progress import size_text
from mvl_assets.judging.plan import plan_judge
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.rewriting.plan import Plan, plan_rewrite
from mvl_assets.runner import selection

# The assets a stage makes, by the first part of their keys; the second part is a source (raw) or a category.
MAKES = {"ingest": "raw", "rewrite": "rewritten", "judge": "judged"}
# The stage whose rows are asked about.
BEFORE = {"rewrite": "category", "judge": "rewritten"}


@click.command(name="plan")
@click.argument("stage", type=click.Choice(["ingest", "rewrite", "judge"]))
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--category", type=click.Choice(CATEGORIES), help="Only this category.")
@click.option("--select", metavar="SELECTION", help=selection.HELP)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Rows per source, by hash; a larger limit contains a smaller."
)
@click.option(
    "--mbit", type=click.FloatRange(min=0, min_open=True), default=1000.0, show_default=True, help="Line, in Mbit/s."
)
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(
    stage: str,
    sources: tuple[str, ...],
    category: str | None,
    select: str | None,
    limit: int | None,
    mbit: float,
    json_: bool,
) -> None:
    """Say what a stage would fetch (ingest) or send (rewrite, judge), before anything moves."""
    made = None if select is None else _made(stage, select)

    def wanted(spec: SourceSpec) -> bool:
        part = spec.slug if stage == "ingest" else spec.category
        return category in (None, spec.category) and (made is None or part in made)

    if stage == "ingest":
        _ingest(filter(wanted, _to_ingest(sources)), limit, mbit, asset_keys.profile(), json_)
    else:
        _models(stage, filter(wanted, _to_ask(sources)), limit, asset_keys.profile(), json_)


def _made(stage: str, expression: str) -> set[str]:
    """The sources (ingest) or categories (rewrite, judge) of the stage's assets among the selected ones."""
    found = {key.path[1] for key in selection.selected(expression) if key.path[0] == MAKES[stage]}
    if not found:
        raise MvlError(
            f"--select {expression!r} selects no asset of {stage}", hint=f"name some of key:{MAKES[stage]}/*"
        )
    return found


def _to_ingest(sources: tuple[str, ...]) -> list[SourceSpec]:
    return [source_named(slug) for slug in sources or asset_keys.chosen_sources()]


def _to_ask(sources: tuple[str, ...]) -> list[SourceSpec]:
    asked = [spec for spec in map(source_named, asset_keys.chosen_sources()) if spec.group == "B"]
    return [source_named(slug) for slug in sources] or sorted(asked, key=lambda spec: CATEGORIES.index(spec.category))


def _ingest(specs: Iterable[SourceSpec], limit: int | None, mbit: float, profile: Profile, json_: bool) -> None:
    chosen = list(specs)
    lock = read_lock()
    plans = [plan_ingest(spec, lock, limit=limit or profile.limit, mbit=mbit) for spec in chosen]
    plans.append(total(plans, chosen, lock, mbit=mbit, keep_archives=profile.keep_archives))
    if json_:
        click.echo(as_json([asdict(plan) for plan in plans]))
        return
    columns = ["source", "state", "files", "there", "size", "to fetch", "hours", "archives", "lake", "note"]
    most = limit or profile.limit
    rows = f", of at most {most:,} rows a source" if most else ""
    click.echo(show(f"ingest at {mbit:g} Mbit/s; lake is an estimate{rows}", columns, [_row(plan) for plan in plans]))


def _row(plan: IngestPlan) -> list[object]:
    return [
        plan.source,
        plan.state,
        "unknown" if plan.files is None else plan.files,
        plan.files_here,
        size_text(plan.size),
        size_text(plan.to_fetch),
        "unknown" if plan.hours is None else "<0.01" if 0 < plan.hours < 0.005 else f"{plan.hours:.2f}",
        size_text(plan.archives),
        size_text(plan.lake),
        plan.note,
    ]


def _models(stage: str, specs: Iterable[SourceSpec], limit: int | None, profile: Profile, json_: bool) -> None:
    lake = Lake(settings().lake_root)
    plans: list[Plan] = []
    for spec in specs:
        if not lake.table(f"category/{spec.category}").exists():
            continue
        if stage == "rewrite":
            plans.append(plan_rewrite(lake, spec, profile, limit=limit))
            continue
        plans.append(plan_judge(lake, spec, profile, limit=limit))
        if profile.second_judge is not None:
            plans.append(plan_judge(lake, spec, profile, limit=limit, role="second_judge"))
    plans = [plan for plan in plans if plan.wanted]
    if json_:
        click.echo(as_json([asdict(plan) for plan in plans]))
        return
    if not plans:
        click.echo(
            f"nothing to {stage}: the rows it needs are not there yet; `mvl run --until {BEFORE[stage]}` makes them"
        )
        return
    lines = [[plan.source, plan.model, *_amounts([plan])] for plan in plans]
    for model in dict.fromkeys(plan.model for plan in plans):
        lines.append(["all", model, *_amounts([plan for plan in plans if plan.model == model])])
    columns = ["source", "model", "rows", "requests", "answered", "left", "to send", "tokens in", "tokens out"]
    money = "/".join(dict.fromkeys(plan.currency for plan in plans)) or "cost"
    click.echo(show(f"{stage}: what to send is exact, the rest is estimated", [*columns, "GPU hours", money], lines))
    if any(plan.left for plan in plans):
        click.echo("left: failed before; `mvl retry --list` says how")


def _amounts(plans: list[Plan]) -> list[object]:
    """Sums in the order of the columns; empty where no plan has a price."""
    counts = ("rows", "wanted", "answered", "left", "to_send", "prompt_tokens", "completion_tokens")
    hours = [plan.gpu_hours for plan in plans if plan.gpu_hours is not None]
    costs = [plan.cost for plan in plans if plan.cost is not None]
    return [
        *(sum(getattr(plan, name) for plan in plans) for name in counts),
        round(sum(hours), 3) if hours else None,
        round(sum(costs), 2) if costs else None,
    ]
