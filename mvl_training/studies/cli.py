"""`mvl study`: plan, run, report and share studies."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from mvl_assets.common.installation import require_training_packages
from mvl_assets.common.tables import as_json, format_narrow_table
from mvl_assets.config.catalog import list_all_categories
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.plan import IN_LAKE
from mvl_assets.orchestration import asset_keys
from mvl_assets.runner.forecasts import plan_source
from mvl_assets.stages import JUDGED, REWRITTEN
from mvl_training.model.cost_model import PEAK_TFLOPS_BY_DEVICE
from mvl_training.studies import bundle as bundles
from mvl_training.studies.arm_steps import STEP_NAMES, is_step_done
from mvl_training.studies.arms import resolve_arms
from mvl_training.studies.forecast import ArmForecast, forecast_study, select_rows
from mvl_training.studies.plots import plot_report
from mvl_training.studies.record import (
    StudyRecord,
    compute_input_versions,
    hold_study,
    list_started_studies,
    load_record,
    load_state,
    remove_study,
    require_record,
    require_same_inputs,
    require_same_study,
    start_study,
)
from mvl_training.studies.results import (
    StudyReport,
    build_report,
    describe_outcome,
    read_scores,
    render_report,
    report_to_dict,
)
from mvl_training.studies.study import (
    Study,
    build_varied_study,
    find_study_file,
    list_studies,
    load_study,
    parse_study,
    require_study_file,
)
from mvl_training.studies.study_options import Command, add_study_options, apply_options


@click.group(name="study")
def command() -> None:
    """Measure what a change of mixture or recipe does: arms, seeds, one report.

    NAME is a study of the project (`studies/`) or of the package, a YAML file, or any name with --vary.
    """


def add_naming_options(function: Command) -> Command:
    """Add the options by which a study has arms, or a name, of its own."""
    vary = click.option(
        "--vary", "variations", multiple=True, metavar="KEY=V,V", help="One arm per value of a setting."
    )
    rename = click.option("--name", "new_name", metavar="NAME", help="Start the study under another name.")
    return vary(rename(function))


@command.command(name="list")
def list_known() -> None:
    """List the studies that can be run, and those that were started here."""
    started = set(list_started_studies())
    known = {name: load_study(path) for name, path in list_studies().items()}
    known |= {name: require_record(name).study for name in started}
    rows = [
        [name, str(len(study.arms)), str(len(study.seeds)), "yes" if name in started else "", study.description.strip()]
        for name, study in sorted(known.items())
    ]
    for row in rows:
        row[4] = row[4].splitlines()[0] if row[4] else ""
    width = max(len(row[0]) for row in rows)
    for name, n_arms, n_seeds, is_started, description in rows:
        mark = "*" if is_started else " "
        click.echo(f"{mark} {name:<{width}}  {n_arms} arms, {n_seeds} seeds  {description}")
    click.echo("* started here")


@command.command()
@click.argument("name")
@add_naming_options
@add_study_options
@click.option("--mfu", default=0.4, show_default=True, type=click.FloatRange(0.01, 1.0), help="Utilisation of a GPU.")
@click.option("--peak", default=float(PEAK_TFLOPS_BY_DEVICE["H100"]), show_default=True, help="bf16 TFLOP/s of a GPU.")
@click.option("--json", "json_", is_flag=True, help="Print a JSON object.")
def plan(name: str, mfu: float, peak: float, json_: bool, **changes: Any) -> None:
    """Show what a study would take and what is reused, without doing anything."""
    require_training_packages()
    study, record, _ = _resolve_study(name, **changes)
    lake = open_lake()
    arms = resolve_arms(study, asset_keys.load_active_profile())
    if record is not None:
        require_same_inputs(record, arms, compute_input_versions(lake, study))
    selections = select_rows(lake, study, arms)
    forecasts = forecast_study(study, arms, selections, mfu=mfu, peak_flops=peak * 1e12, is_started=record is not None)
    n_outstanding = count_outstanding_requests(lake)
    if json_:
        click.echo(as_json(_describe_plan(forecasts, n_outstanding)))
        return
    print_plan(study, forecasts, n_outstanding)


@command.command()
@click.argument("name")
@add_naming_options
@add_study_options
def run(name: str, **changes: Any) -> None:
    """Run what is left of a study; it may be killed, and goes on when it is called again."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    require_training_packages()
    study, record, file_content = _resolve_study(name, **changes)
    lake = open_lake()
    arms = resolve_arms(study, asset_keys.load_active_profile())
    inputs = compute_input_versions(lake, study)
    if record is not None:
        require_same_inputs(record, arms, inputs)
    if record is None or not all(is_step_done(study, arm, STEP_NAMES[0]) for arm in arms):
        select_rows(lake, study, arms)
    from mvl_training.studies.run import run_arms

    with hold_study(study.name):
        if record is None:
            start_study(study, arms, inputs, file_content)
        tally = run_arms(study, arms, click.echo)
    click.echo(f"{tally.made} steps made, {tally.done} done before, {len(tally.failed)} failed")
    for failure in tally.failed:
        click.secho(f"error: {failure}", fg="red", err=True)
    if tally.failed:
        click.echo("run the same command again to continue from here", err=True)
        sys.exit(1)
    print_report(build_report(study, read_scores(lake, study)))


@command.command()
@click.argument("name")
@click.option("--json", "json_", is_flag=True, help="Print a JSON list, one object per arm and seed.")
def status(name: str, json_: bool) -> None:
    """Show how far each arm of a study is."""
    study = require_record(name).study
    arms = resolve_arms(study, asset_keys.load_active_profile())
    rows = []
    for arm in arms:
        state = load_state(arm.arm_id)
        rows.append(
            {"arm": arm.arm_id.arm, "seed": arm.arm_id.seed}
            | {step: is_step_done(study, arm, step) for step in STEP_NAMES}
            | {"seconds": round(sum(state.run_times.values()), 1)}
        )
    if json_:
        click.echo(as_json(rows))
        return
    cells = [["done" if v is True else "-" if v is False else str(v) for v in row.values()] for row in rows]
    click.echo(format_narrow_table(list(rows[0]), cells))


@command.command()
@click.argument("name")
@click.option("--json", "json_", is_flag=True, help="Print a JSON object.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it as Markdown to this file, with a plot beside it.",
)
def report(name: str, json_: bool, out: Path | None) -> None:
    """Show scores by arm, differences with their intervals, and what is settled."""
    study = require_record(name).study
    built = build_report(study, read_scores(open_lake(), study))
    if out is not None:
        text = render_report(built)
        if built.scores:
            image = out.with_suffix(".png")
            image.write_bytes(plot_report(built))
            text += f"\n![Scores and differences]({image.name})\n"
        out.write_text(text, encoding="utf-8")
        click.echo(f"written: {out}")
    elif json_:
        click.echo(as_json(report_to_dict(built)))
    else:
        print_report(built)


@command.command(name="export")
@click.argument("name")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder.")
def export_command(name: str, out: Path) -> None:
    """Write a study to a folder: its YAML, versions of all inputs, every score, the report, the environment."""
    record = require_record(name)
    arms = resolve_arms(record.study, asset_keys.load_active_profile())
    built = bundles.export_study(out, record, arms, read_scores(open_lake(), record.study))
    missing = f"; not evaluated yet: {len(built.missing)} of {len(arms)}" if built.missing else ""
    click.echo(f"written: {out}{missing}")


@command.command(name="import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def import_command(folder: Path) -> None:
    """Check the folder of an exported study, show its report, and compare it with this lake and its scores."""
    read = bundles.read_bundle(folder)
    print_report(build_report(read.study, read.rows))
    lake, record = open_lake(), load_record(read.study.name)
    own_rows = [] if record is None else read_scores(lake, record.study)
    for line in bundles.iter_bundle_differences(read, compute_input_versions(lake, read.study), own_rows):
        click.echo(line)


@command.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Remove a study: its tables, its record and its arms. Checkpoints stay, and are reused."""
    study = require_record(name).study
    if not yes:
        click.confirm(f"remove study {name} with {len(study.list_runs())} arms?", abort=True)
    with hold_study(name):
        n_tables = remove_study(open_lake(), name)
    click.echo(f"{n_tables} tables removed; checkpoints stay in {load_settings().checkpoints_dir}")


def open_lake() -> Lake:
    """Return the lake with the pipeline's own tables."""
    return Lake(load_settings().lake_root).get_pipeline_lake()


def _resolve_study(
    name: str, *, variations: Sequence[str], new_name: str | None, **options: Any
) -> tuple[Study, StudyRecord | None, dict[str, Any] | None]:
    """Return the study that the words of a command mean, its record, and what its file says.

    A study that was started needs none of the options again. With them, it has to be the same.
    """
    has_options = bool(variations) or any(options.values())
    path = find_study_file(name)
    record = load_record(new_name or (name if path is None else path.stem))
    if variations:
        study, file_content = build_varied_study(new_name or name, variations), None
    elif record is not None and not has_options and (path is None or record.file_content is None):
        return record.study, record, None
    else:
        study = load_study(require_study_file(name))
        file_content = study.to_dict()
        if record is not None and not has_options:
            require_same_study(replace(record, study=parse_study(dict(record.file_content or {}), name)), study)
            return record.study, record, file_content
    study = apply_options(study, **options)
    if new_name is not None:
        study = parse_study(study.to_dict() | {"name": new_name}, f"study {new_name}")
    if record is not None:
        require_same_study(record, study)
    return study, record, file_content


def count_outstanding_requests(lake: Lake) -> int:
    """Return the requests that rewriting and judging of the profile's sources would send now, before the study."""
    profile, n_requests = asset_keys.load_active_profile(), 0
    for sources in asset_keys.list_category_groups(list_all_categories(), profile).values():
        for slug, group in sources.items():
            if group == "B" and slug in asset_keys.list_graph_sources():
                plans = plan_source(lake, asset_keys.get_source(slug), profile)
                counted = [p for p in plans if p.stage in (REWRITTEN.name, JUDGED.name) and p.counted == IN_LAKE]
                n_requests += sum(p.to_send for p in counted)
    return n_requests


def _describe_plan(forecasts: Sequence[ArmForecast], n_outstanding: int) -> dict[str, Any]:
    return {
        "requests": 0,
        "outstanding_requests": n_outstanding,
        "arms": [
            {
                "arm": f.arm.arm_id.arm,
                "seed": f.arm.arm_id.seed,
                "done": list(f.done),
                "stages": [asdict(stage) for stage in f.stages],
            }
            for f in forecasts
        ],
        "trainings": len({stage.digest for f in forecasts for stage in f.stages}),
    }


def print_plan(study: Study, forecasts: Sequence[ArmForecast], n_outstanding: int) -> None:
    """Print what a study would take, by arm and training stage, and in all."""
    first_forecasts = forecasts[: len(study.arms)]
    rows = [
        [
            f.arm.arm_id.arm,
            stage.stage,
            f"{stage.rows:,}",
            f"{stage.rewritten:,}",
            f"{stage.steps:,}",
            "" if stage.gpu_hours is None else f"{stage.gpu_hours:.1f}",
            f"{stage.disk_bytes / 1e9:.1f}",
        ]
        for f in first_forecasts
        for stage in f.stages
    ]
    click.echo(format_narrow_table(["arm", "stage", "rows", "rewr.", "steps", "GPU h", "GB"], rows))
    stages = {stage.digest: stage for f in forecasts for stage in f.stages}
    n_stages = sum(len(f.stages) for f in forecasts)
    hours = [stage.gpu_hours for stage in stages.values()]
    total_hours = "not known" if None in hours else f"{sum(h for h in hours if h is not None):.1f}"
    total_gb = sum(stage.disk_bytes for stage in stages.values()) / 1e9
    done = Counter(step for f in forecasts for step in f.done)
    click.echo(
        f"\n{len(study.arms)} arms, {len(study.seeds)} seeds: {len(stages)} trainings ({n_stages - len(stages)} more"
        f" are shared between arms), GPU hours {total_hours}, disk {total_gb:.1f} GB at most"
    )
    click.echo("requests to send: 0 (arms are mixed from answers that are stored)")
    if n_outstanding:
        click.echo(
            f"not rewritten or judged yet: {n_outstanding:,} requests; `mvl run --until judged` sends them first"
        )
    reused = ", ".join(f"{step} {done[step]} of {len(forecasts)}" for step in STEP_NAMES if done[step])
    click.echo(f"done already: {reused or 'nothing'}")


def print_report(built: StudyReport) -> None:
    """Print scores, differences, and what is settled."""
    study = built.study
    if built.missing:
        click.echo(f"not evaluated yet: {', '.join(arm_id.path for arm_id in built.missing)}")
    if not built.scores:
        return
    rows = [
        [
            s.benchmark,
            s.arm,
            f"{s.mean:.1f}",
            "" if s.spread is None else f"{s.spread:.1f}",
            str(s.n_seeds),
            str(s.n_questions),
        ]
        for s in built.scores
    ]
    click.echo(format_narrow_table(["benchmark", "arm", "score", "sd", "seeds", "questions"], rows))
    for title, differences in (("", built.differences), (", clean questions", built.clean_differences)):
        if not differences:
            continue
        click.echo(f"\ndifference from {study.baseline_arm}{title}")
        rows = [
            [
                d.benchmark,
                d.arm,
                f"{d.difference:+.1f}",
                f"{d.ci_low:+.1f} to {d.ci_high:+.1f}",
                "one seed" if d.adjusted_p_value is None else f"{d.adjusted_p_value:.2g}",
                str(d.n_questions),
            ]
            for d in differences
        ]
        click.echo(format_narrow_table(["benchmark", "arm", "points", "95 %", "p (Holm)", "questions"], rows))
    for difference in built.differences:
        click.echo(describe_outcome(study, difference))
