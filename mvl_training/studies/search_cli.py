"""`mvl mixture search`: shares of categories that a small recipe learns more from, each trial an arm of a study."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from mvl_assets.common.installation import require_packages, require_training_packages
from mvl_assets.common.tables import format_narrow_table
from mvl_assets.config.profile import Profile
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_training.model.cost_model import PEAK_TFLOPS_BY_DEVICE
from mvl_training.studies.arms import resolve_arms
from mvl_training.studies.cli import count_outstanding_requests, open_lake, print_plan
from mvl_training.studies.forecast import forecast_study, select_rows
from mvl_training.studies.mixture_search import (
    DEFAULT_ARM,
    MixtureSearch,
    build_confirmation,
    build_search,
    find_best_trial,
    get_shares,
    list_gains,
    require_budget,
    require_search,
    require_trials,
    run_search,
)
from mvl_training.studies.record import (
    StudyRecord,
    compute_input_versions,
    hold_study,
    load_record,
    require_same_inputs,
    require_same_study,
    start_study,
)
from mvl_training.studies.results import StudyReport, build_report, read_scores
from mvl_training.studies.run import RunTally, run_arms
from mvl_training.studies.share_sampling import N_SPREAD_TRIALS, SEARCH_PACKAGES
from mvl_training.studies.statistics import Difference
from mvl_training.studies.study import MAX_RUNS, Study, parse_study
from mvl_training.studies.study_options import add_study_options, apply_options

DEFAULT_MFU = 0.4


@click.command(name="search")
@click.option(
    "--budget",
    required=True,
    type=click.IntRange(2, MAX_RUNS),
    help="Mixtures to train, the profile's own among them; a larger one later goes on with the same search.",
)
@click.option(
    "--confirm",
    "n_confirm_seeds",
    default=3,
    show_default=True,
    type=click.IntRange(0, MAX_RUNS // 2),
    help="Seeds with which the best trial and the default are trained again; 0: leave the gain unconfirmed.",
)
@click.option("--name", default="mix-search", show_default=True, help="Name of the study.")
@add_study_options
@click.option("--dry-run", is_flag=True, help="Show what the first trials would take, and do nothing.")
def command(budget: int, n_confirm_seeds: int, name: str, dry_run: bool, **options: Any) -> None:
    """Search for mixture shares that a small recipe learns more from than from the profile's.

    Every trial is an arm of a study and is trained on the same number of rows. Optuna chooses the next shares by what
    the trials before gained. The best one is trained once more with other seeds, because the best of many looks better
    than it is. The search may be killed, and goes on when it is called again.
    """
    require_training_packages()
    require_packages("a search for mixture shares", SEARCH_PACKAGES, extra="search")
    lake, profile = open_lake(), asset_keys.load_active_profile()
    study, record = _resolve_search(name, profile, options)
    require_budget(study, budget)
    search, inputs = MixtureSearch(lake, profile, study), compute_input_versions(lake, study)
    if record is not None:
        require_same_inputs(record, search.resolve_arms(), inputs)
    if dry_run:
        _print_dry_run(search, record, budget, n_confirm_seeds)
        return

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with hold_study(name):
        tally = run_search(search, record, inputs, budget, click.echo)
        report = search.build_report()
        best = find_best_trial(report)
        confirmation = None
        if best is not None and n_confirm_seeds:
            confirmed_study = build_confirmation(search.study, best, n_confirm_seeds)
            confirmation = _run_confirmation(lake, profile, confirmed_study, inputs, tally)
    _print_result(search, report, best, confirmation)
    for failure in tally.failed:
        click.secho(f"error: {failure}", fg="red", err=True)
    if tally.failed:
        click.echo("run the same command again to continue from here", err=True)
        sys.exit(1)


def _resolve_search(name: str, profile: Profile, options: dict[str, Any]) -> tuple[Study, StudyRecord | None]:
    """Return the search that the words of a command mean, and its record.

    A search that was started needs none of the options again. With them, it has to be the same.
    """
    record = load_record(name)
    if record is not None:
        require_search(record.study)
        if not any(options.values()):
            return record.study, record
    empty = {"name": name, "description": "Mixture shares found by Optuna", "arms": {DEFAULT_ARM: {}}, "seeds": [0]}
    study = build_search(apply_options(parse_study(empty, f"study {name}"), **options), profile)
    if record is None:
        return study, None
    require_same_study(record, study.model_copy(update={"arms": record.study.arms}))
    return record.study, record


def _run_confirmation(
    lake: Lake,
    profile: Profile,
    study: Study,
    inputs: dict[str, str],
    tally: RunTally,
) -> Difference | None:
    """Train the best trial and the default with other seeds; return its gain, or None where a step failed."""
    arms, record = resolve_arms(study, profile), load_record(study.name)
    if record is not None:
        require_same_study(record, study)
        require_same_inputs(record, arms, inputs)
    with hold_study(study.name):
        if record is None:
            start_study(study, arms, inputs, None)
        tally.add(run_arms(study, arms, click.echo))
    gains = list_gains(build_report(study, read_scores(lake, study)))
    return next(iter(gains.values()), None)


def _print_dry_run(search: MixtureSearch, record: StudyRecord | None, budget: int, n_confirm_seeds: int) -> None:
    if record is None:
        require_trials(search, search.add_trials(min(budget - 1, N_SPREAD_TRIALS)))
    arms = search.resolve_arms()
    forecasts = forecast_study(
        search.study,
        arms,
        select_rows(open_lake(), search.study, arms),
        mfu=DEFAULT_MFU,
        peak_flops=PEAK_TFLOPS_BY_DEVICE["H100"] * 1e12,
        is_started=record is not None,
    )
    print_plan(search.study, forecasts, count_outstanding_requests(open_lake()))
    n_more = (budget - len(search.study.arms)) * len(search.study.seeds)
    click.echo(
        f"then {max(0, n_more)} more arms of the same size, chosen by what these gain; and 2 arms with"
        f" {n_confirm_seeds} seeds to confirm the best"
    )


def _print_result(
    search: MixtureSearch, report: StudyReport, best: str | None, confirmation: Difference | None
) -> None:
    gains, study = list_gains(report), search.study
    if not gains:
        click.echo("no trial has scores yet")
        return
    rows = [[DEFAULT_ARM, "", "", *(f"{share:.3g}" for share in search.space.defaults.values())]]
    for arm, gain in gains.items():
        shares = get_shares(study, arm)
        rows.append(
            [
                arm,
                f"{gain.difference:+.1f}",
                _format_interval(gain),
                *(f"{shares[category]:.3g}" for category in search.space.defaults),
            ]
        )
    click.echo(format_narrow_table(["shares", "points", "95 %", *search.space.defaults], rows))
    click.echo("")
    if best is None:
        click.echo(f"none of {len(gains)} trials scored more than the default")
        return
    for line in describe_gain(study, len(gains), gains[best], confirmation):
        click.echo(line)
    pairs = ", ".join(f"{category}: {share:g}" for category, share in get_shares(study, best).items())
    click.echo(f"its shares, for a profile: mixture: {{shares: {{{pairs}}}}}")


def describe_gain(study: Study, n_trials: int, gain: Difference, confirmation: Difference | None) -> list[str]:
    """Return in sentences what the best trial gained, and what of it held with seeds that did not choose it."""
    lines = [
        f"best of {n_trials} trials: {gain.arm}, {gain.difference:+.1f} points over the default"
        f" ({_format_interval(gain)}), by the very seeds and questions that chose it: the best of many looks better"
        " than it is"
    ]
    if confirmation is None:
        return [*lines, f"not confirmed: nothing shows that {gain.arm} is better than the default; see --confirm"]
    measured = f"with seeds that did not choose it ({confirmation.n_seeds}): {confirmation.difference:+.1f} points"
    lines.append(f"{measured} ({_format_interval(confirmation)}), on the same {confirmation.n_questions} questions")
    if confirmation.seed_spread is None:
        return [*lines, f"one seed does not tell {gain.arm} and the default apart; see --confirm"]
    if confirmation.ci_low <= 0 <= confirmation.ci_high:
        return [*lines, f"the interval includes 0: nothing shows that {gain.arm} is better than the default"]
    word = "better" if confirmation.difference > 0 else "worse"
    return [*lines, f"{gain.arm} is {word} than the default for this recipe; a larger one may differ"]


def _format_interval(gain: Difference) -> str:
    return f"{gain.ci_low:+.1f} to {gain.ci_high:+.1f}"
