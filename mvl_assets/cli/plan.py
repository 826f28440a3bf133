"""`mvl plan`: what a stage would fetch, send or take, and what it would cost, before anything moves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import click

from mvl_assets.cli.mixture import print_mixture_plan
from mvl_assets.common.tables import as_json, format_narrow_table, format_short_number, format_table
from mvl_assets.config.catalog import SourceSpec, get_source, list_all_categories
from mvl_assets.config.profile import Profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.lock import read_lockfile
from mvl_assets.fetch.plan import IngestPlan, plan_ingest, sum_plans
from mvl_assets.fetch.progress import format_bytes
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.forecast import EXPECTED, HALF_LIMIT, MEASURED
from mvl_assets.model_stage.image_tokens import DEFAULT_RULE, TILE_SIDE_PX, TOKENS_PER_TILE
from mvl_assets.model_stage.plan import FROM_CATALOG, IN_LAKE, TO_COME, RequestPlan, plan_stage
from mvl_assets.orchestration import asset_keys
from mvl_assets.runner import selection
from mvl_assets.runner.forecasts import plan_probes, plan_source
from mvl_assets.runner.model_stages import build_model_stage
from mvl_assets.stages import (
    CATEGORY,
    JUDGED,
    MIXTURE,
    MODEL_STAGES,
    PROBE_ANSWERS,
    RAW,
    REWRITTEN,
    SCORED,
    STAGES_BY_NAME,
)

ALL_STAGES = "all"
NOTE_WIDTH = 80
PLANNED_STAGES = (RAW.name, *(stage.name for stage in MODEL_STAGES), MIXTURE.name, ALL_STAGES)


@click.command(name="plan")
@click.argument("stage", type=click.Choice(PLANNED_STAGES))
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--category", type=click.Choice(list_all_categories()), help="Only this category.")
@click.option("--select", metavar="SELECTION", help=selection.SELECT_HELP)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Rows per source, by hash; a larger limit contains a smaller."
)
@click.option(
    "--bandwidth-mbit",
    type=click.FloatRange(min=0, min_open=True),
    default=1000.0,
    show_default=True,
    help="Network bandwidth, in Mbit/s.",
)
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(
    stage: str,
    sources: tuple[str, ...],
    category: str | None,
    select: str | None,
    limit: int | None,
    bandwidth_mbit: float,
    json_: bool,
) -> None:
    """Say what a stage would fetch (raw), send (rewritten, judged, scored) or take (mixture), before anything moves.

    `all` is rewriting, judging and scoring of every source, rewrites to come and sources that are not ingested yet
    included, and `mvl judge probe`.
    """
    selected_names = None if select is None or stage == MIXTURE.name else _select_asset_names(stage, select)

    def is_selected(spec: SourceSpec) -> bool:
        asset_name = spec.slug if stage == RAW.name else spec.category
        return category in (None, spec.category) and (selected_names is None or asset_name in selected_names)

    if stage == MIXTURE.name:
        if limit or select:
            raise click.UsageError("the mixture takes its rows by the profile: --limit and --select do not change it")
        print_mixture_plan(asset_keys.load_active_profile(), sources, category, json_)
    elif stage == RAW.name:
        specs = filter(is_selected, _list_raw_sources(sources))
        _print_raw_plan(specs, limit, bandwidth_mbit, asset_keys.load_active_profile(), json_)
    else:
        specs = filter(is_selected, _list_model_stage_sources(sources))
        has_probes = stage == ALL_STAGES and not (sources or category or select)
        _print_model_stage_plan(stage, specs, limit, asset_keys.load_active_profile(), json_, has_probes=has_probes)


def _select_asset_names(stage: str, expression: str) -> set[str]:
    """Return the second key parts of the stage's selected assets: sources for raw, else categories."""
    stages = [model_stage.name for model_stage in MODEL_STAGES] if stage == ALL_STAGES else [stage]
    names = {key.path[1] for key in selection.resolve_selection(expression) if key.path[0] in stages}
    if not names:
        raise MvlError(
            f"--select {expression!r} selects no asset of the stage {stage}", hint=f"name some of key:{stage}/*"
        )
    return names


def _list_raw_sources(sources: tuple[str, ...]) -> list[SourceSpec]:
    return [get_source(slug) for slug in sources or asset_keys.list_profile_sources()]


def _list_model_stage_sources(sources: tuple[str, ...]) -> list[SourceSpec]:
    group_b_specs = [spec for spec in map(get_source, asset_keys.list_profile_sources()) if spec.group == "B"]
    return [get_source(slug) for slug in sources] or sorted(
        group_b_specs, key=lambda spec: list_all_categories().index(spec.category)
    )


def _print_raw_plan(
    specs: Iterable[SourceSpec], limit: int | None, bandwidth_mbit: float, profile: Profile, json_: bool
) -> None:
    selected_specs = list(specs)
    lock = read_lockfile()
    plans = [
        plan_ingest(spec, lock, limit=limit or profile.limit, bandwidth_mbit=bandwidth_mbit) for spec in selected_specs
    ]
    plans.append(
        sum_plans(plans, selected_specs, lock, bandwidth_mbit=bandwidth_mbit, keep_archives=profile.keep_archives)
    )
    if json_:
        click.echo(as_json([asdict(plan) for plan in plans]))
        return
    columns = ["source", "state", "files", "present", "size", "to fetch", "hours", "archives", "lake", "note"]
    max_rows = limit or profile.limit
    limit_note = f", of at most {max_rows:,} rows a source" if max_rows else ""
    click.echo(
        format_table(
            f"raw, at {bandwidth_mbit:g} Mbit/s; lake is an estimate{limit_note}",
            columns,
            [_build_raw_row(plan) for plan in plans if plan.source == "all" or not _is_unknown(plan)],
        )
    )
    if n_unknown := sum(map(_is_unknown, plans[:-1])):
        click.echo(f"{n_unknown} more sources: nothing is known of their files; `mvl sources lock` looks them up")


def _is_unknown(plan: IngestPlan) -> bool:
    return plan.n_files is None and plan.total_bytes is None and not plan.n_files_present


def _build_raw_row(plan: IngestPlan) -> list[object]:
    return [
        plan.source,
        plan.state,
        "unknown" if plan.n_files is None else plan.n_files,
        plan.n_files_present,
        format_bytes(plan.total_bytes),
        format_bytes(plan.bytes_to_fetch),
        "unknown"
        if plan.fetch_hours is None
        else "<0.01"
        if 0 < plan.fetch_hours < 0.005
        else f"{plan.fetch_hours:.2f}",
        format_bytes(plan.archive_bytes),
        format_bytes(plan.lake_bytes),
        plan.note,
    ]


def _print_model_stage_plan(
    stage: str, specs: Iterable[SourceSpec], limit: int | None, profile: Profile, json_: bool, *, has_probes: bool
) -> None:
    if stage == SCORED.name and not profile.score_rows:
        raise MvlError(f"the profile {profile.name} scores no rows", hint="set `score_rows` in it")
    lake = Lake(load_settings().lake_root)
    plans: list[RequestPlan] = []
    unknown_sources: list[str] = []
    for spec in specs:
        if stage == ALL_STAGES:
            source_plans = plan_source(lake, spec, profile, limit)
            plans += source_plans
            unknown_sources += [] if source_plans else [spec.slug]
        elif lake.get_table(CATEGORY.get_table_name(spec.category)).exists():
            plans += plan_stage(lake, build_model_stage(stage, lake, spec, profile, limit=limit))
    plans = [plan for plan in plans if plan.requested]
    if plans and has_probes:
        plans += plan_probes(lake, profile)
    if json_:
        click.echo(as_json([asdict(plan) for plan in plans]))
        return
    if not plans:
        first_stage = MODEL_STAGES[0].name if stage == ALL_STAGES else stage
        click.echo(
            f"{stage}: nothing to send, because the rows it needs do not exist yet;"
            f" `mvl run --until {STAGES_BY_NAME[first_stage].upstream[0]}` makes them"
        )
        return
    rows = [_build_row(plan.source, [plan]) for plan in plans]
    for model in dict.fromkeys(plan.model for plan in plans):
        rows.append(_build_row(f"all {model.rpartition('/')[2][:31]}", [plan for plan in plans if plan.model == model]))
    currency = "/".join(dict.fromkeys(plan.currency for plan in plans))
    columns = ["source", "stage", "done", "send", "in", "out", "GPU h", currency[:5], "by"]
    click.echo(format_narrow_table(columns, rows))
    notes = list(_list_plan_notes(plans, currency))
    if unknown_sources:
        notes.append(f"not counted, as neither the lake nor the catalog has their size: {', '.join(unknown_sources)}")
    for note in notes:
        click.echo(textwrap.fill(note, NOTE_WIDTH, subsequent_indent="  "))


_STAGE_MARKS = {REWRITTEN.name: "rew", JUDGED.name: "jud", SCORED.name: "sco", PROBE_ANSWERS: "pro"}
_COUNTED_MARKS = {IN_LAKE: "", TO_COME: "+", FROM_CATALOG: "~"}
_BASIS_MARKS = {MEASURED: "a", EXPECTED: "p", HALF_LIMIT: "l", "": ""}


def _build_row(label: str, plans: Sequence[RequestPlan]) -> list[str]:
    """Return a line of the table: sums over the plans."""
    hours = [plan.gpu_hours for plan in plans if plan.gpu_hours is not None]
    costs = [plan.cost for plan in plans if plan.cost is not None]
    marks = {_STAGE_MARKS.get(plan.stage, plan.stage) + _COUNTED_MARKS[plan.counted] for plan in plans}
    return [
        label,
        marks.pop() if len(marks) == 1 else "",
        *(
            format_short_number(sum(getattr(plan, name) for plan in plans))
            for name in ("cache_hits", "to_send", "prompt_tokens", "completion_tokens")
        ),
        format_short_number(sum(hours) if hours else None),
        format_short_number(sum(costs) if costs else None),
        "".join(sorted({_BASIS_MARKS[plan.basis] for plan in plans})),
    ]


def _list_plan_notes(plans: Sequence[RequestPlan], currency: str) -> Iterator[str]:
    """Yield the total with its bounds, and what the marks of the table mean, of those that it has."""
    costs = [(plan.cost_low or 0.0, plan.cost, plan.cost_high or 0.0) for plan in plans if plan.cost is not None]
    if costs and "/" not in currency:
        low, cost, high = (sum(values) for values in zip(*costs, strict=True))
        yield f"{currency} {cost:,.2f} in all, within {low:,.2f} and {high:,.2f}"
    factors = {plan.model: plan.batch_price_factor for plan in plans if plan.batch_price_factor is not None}
    if factors:
        yield "in batches: " + ", ".join(f"{name} at {factor:g} of its price" for name, factor in factors.items())
    n_reasks, n_votes = (sum(getattr(plan, name) for plan in plans) for name in ("reasks", "follow_ups"))
    if n_reasks or n_votes:
        further = f"{n_reasks:,} expected re-asks" + (f", {n_votes:,} votes" if n_votes else "")
        yield f"in and out are tokens, {further} and all thoughts included"
    if any(plan.may_follow_up for plan in plans):
        yield "only the upper bound has votes of judges whose servers may lack log-probabilities"
    if rules := sorted({plan.image_rule for plan in plans if plan.to_send and plan.image_rule}):
        guess = f" ({TOKENS_PER_TILE} a tile of {TILE_SIDE_PX} px: a guess)" if DEFAULT_RULE in rules else ""
        yield f"tokens of images by the rule of {', '.join(rules)}{guess}"
    counted, bases = ({getattr(plan, name) for plan in plans} for name in ("counted", "basis"))
    if TO_COME in counted:
        yield "+: of rewrites to come; nothing is taken off for those that the checks drop"
    if FROM_CATALOG in counted:
        yield "~: not ingested; counted by the catalog, with a typical image and question"
    if MEASURED in bases:
        yield "by a: the length of this model's stored answers to the prompt"
    if EXPECTED in bases:
        yield "by p: what the prompt expects; nothing of this model is stored, a factor of 2"
    if HALF_LIMIT in bases:
        yield "by l: half the prompt's token limit; nothing of this model is stored"
    if n_skipped := sum(plan.skipped for plan in plans):
        yield f"{n_skipped:,} more failed before and are not sent again; `mvl retry --list` says how"
    if any(plan.cost is None and plan.to_send for plan in plans):
        yield "no cost without a `price` of the model in the profile"
