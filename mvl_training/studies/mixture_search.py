"""A search for mixture shares: a study whose arms are found one after the other, by what the arms before them gained.

The arm `default` has the shares of the profile, and is the baseline; `trial-01` and so on have others. A trial is
recorded before it is run, as the arms of any study are, so a search that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mvl_assets.common.arm_address import ArmId
from mvl_assets.config.mixture_config import ALIGNMENT_CATEGORY
from mvl_assets.config.profile import Profile
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.studies.arms import ResolvedArm, resolve_arm, resolve_arms
from mvl_training.studies.forecast import ShortMixtureError, select_arm_rows, validate_suites
from mvl_training.studies.record import StudyRecord, extend_study, start_study
from mvl_training.studies.results import StudyReport, build_report, read_scores
from mvl_training.studies.run import RunTally, run_arms
from mvl_training.studies.share_sampling import N_SPREAD_TRIALS, Shares, ShareSpace, ShareTrial
from mvl_training.studies.statistics import Difference
from mvl_training.studies.study import HELD_OUT, MAX_RUNS, Overrides, Study, parse_study

DEFAULT_ARM = "default"
SHARES_KEY = "mixture.shares."
MAX_PROPOSALS_IN_VAIN = 20
"""Proposals in a row without another mixture before it is said that none is left to try."""

MAX_MOVES_TO_DEFAULT = 6

Targets = tuple[tuple[str, str, int], ...]
"""Rows by training stage and category."""


def build_search(study: Study, profile: Profile) -> Study:
    """Return a search without trials: the study with an equal number of rows for every arm, the profile's by default.

    Raises:
        MvlError: An option has a mistake.
    """
    default, data = _resolve_default_arm(study, profile), study.to_dict()
    for stage in default.stages:
        n_rows = getattr(default.profile.mixture, stage)
        is_budgeted = stage in study.budget.samples or stage in study.budget.target_tokens
        # All take the same rows of alignment, which has one category.
        if n_rows and not is_budgeted and stage != ALIGNMENT_CATEGORY:
            data["budget"]["samples"][stage] = n_rows
            data["settings"].pop(f"mixture.{stage}", None)
    return parse_study(data, f"study {study.name}")


def require_search(study: Study) -> None:
    """Check that a study is a search.

    Raises:
        MvlError: It is another study of the same name.
    """
    keys = {key for overrides in study.arms.values() for key in overrides}
    if DEFAULT_ARM not in study.arms or not all(key.startswith(SHARES_KEY) for key in keys):
        raise MvlError(f"study {study.name} is no search for mixture shares", hint="give the search another --name")


def _resolve_default_arm(study: Study, profile: Profile) -> ResolvedArm:
    return resolve_arm(study, profile, ArmId(study.name, DEFAULT_ARM, study.seeds[0]))


def get_shares(study: Study, trial: str) -> Shares:
    """Return the shares of a trial by category."""
    return {key.removeprefix(SHARES_KEY): share for key, share in study.arms[trial].items()}


class MixtureSearch:
    """A search for mixture shares.

    Args:
        lake: The lake.
        profile: Its mixture is the default.
        study: The search: its arms so far.

    Raises:
        MvlError: Nothing is held out, the mixtures have no two categories, or the default cannot fill its budget.
    """

    def __init__(self, lake: Lake, profile: Profile, study: Study) -> None:
        self._lake, self._profile = lake, profile
        self.study = study
        validate_suites(study)
        default = _resolve_default_arm(study, profile)
        if default.profile.holdout_fraction == 0 and HELD_OUT in study.suites:
            raise MvlError(
                f"study {study.name}: nothing is held out to ask", hint="set `holdout_fraction` in the profile above 0"
            )
        groups = default.profile.mixture.list_competing_shares(default.stages)
        if not groups:
            raise MvlError(
                f"study {study.name}: the mixtures of {', '.join(default.stages)} have no two categories to weigh"
                f" against each other (profile {profile.name})",
                hint="give two categories of single images, or of several images, a share above 0 in mixture.shares",
            )
        select_arm_rows(lake, study, default)
        self.space = ShareSpace(groups)
        self._default = default

    def resolve_arms(self) -> list[ResolvedArm]:
        """Return all arms with all seeds. Raises as `arms.resolve_arms` does."""
        return resolve_arms(self.study, self._profile)

    def add_trials(self, n_trials: int, scored_trials: Sequence[ShareTrial] = ()) -> list[ResolvedArm]:
        """Find trials by what others gained, add them to the study, and return their arms.

        They are fewer where no mixture is left that this lake can fill and that takes other rows than those before.
        """
        known_targets = {self._compute_targets(get_shares(self.study, arm)) for arm in self.study.arms}
        first_new, n_in_vain = len(self.study.arms), 0
        for shares in self.space.iter_proposals(scored_trials):
            if len(self.study.arms) == first_new + n_trials or n_in_vain == MAX_PROPOSALS_IN_VAIN:
                break
            n_in_vain += 1
            name = f"trial-{len(self.study.arms):02}"
            fitting = self._find_fitting_shares(name, shares, known_targets)
            if fitting is not None:
                known_targets.add(self._compute_targets(fitting))
                self.study, n_in_vain = self._add_arm(name, fitting), 0
        new_names = list(self.study.arms)[first_new:]
        return [arm for arm in self.resolve_arms() if arm.arm_id.arm in new_names] if new_names else []

    def _find_fitting_shares(self, name: str, shares: Shares, known_targets: Collection[Targets]) -> Shares | None:
        """Return the shares, or softer ones where the lake has too few rows; None if they are no other mixture."""
        for _ in range(MAX_MOVES_TO_DEFAULT):
            # Mixtures that fill the budget are the same if they take the same number of rows of every category.
            if self._compute_targets(shares) in known_targets:
                return None
            study = self._add_arm(name, shares)
            try:
                select_arm_rows(self._lake, study, resolve_arm(study, self._profile, self._build_arm_id(name)))
                return shares
            except ShortMixtureError:
                shares = self.space.move_to_default(shares)
        return None

    def _add_arm(self, name: str, shares: Shares) -> Study:
        overrides: Overrides = {f"{SHARES_KEY}{category}": share for category, share in shares.items()}
        return self.study.model_copy(update={"arms": self.study.arms | {name: overrides}})

    def _build_arm_id(self, name: str) -> ArmId:
        return ArmId(self.study.name, name, self.study.seeds[0])

    def _compute_targets(self, shares: Mapping[str, float]) -> Targets:
        """Return the rows that shares give each category, by training stage."""
        mixture = self._default.profile.mixture
        changed = mixture.model_copy(update={"shares": mixture.shares | dict(shares)})
        return tuple(
            (stage, category, n_rows)
            for stage in self._default.stages
            for category, n_rows in sorted(changed.compute_targets(stage).items())
        )

    def build_report(self) -> StudyReport:
        """Return the report of the study."""
        return build_report(self.study, read_scores(self._lake, self.study))

    def read_trials(self) -> list[ShareTrial]:
        """Return the trials that have scores, in their order."""
        gains = list_gains(self.build_report())
        return [ShareTrial(get_shares(self.study, arm), gain.difference) for arm, gain in gains.items()]


def list_gains(report: StudyReport) -> dict[str, Difference]:
    """Return by arm the difference from the default: of the one benchmark, or of the mean over several."""
    return {difference.arm: difference for difference in report.differences}


def require_budget(study: Study, budget: int) -> None:
    """Check that a study may have so many arms.

    Raises:
        MvlError: It may not.
    """
    if budget * len(study.seeds) > MAX_RUNS:
        raise MvlError(
            f"study {study.name}: {budget} arms with {len(study.seeds)} seeds: {MAX_RUNS} in all at most",
            hint="lower --budget or --seeds",
        )


def run_search(
    search: MixtureSearch,
    record: StudyRecord | None,
    inputs: Mapping[str, str],
    budget: int,
    log: Callable[[str], None],
) -> RunTally:
    """Run what is left of a search.

    Args:
        search: The search.
        record: Its record; None if it was not started.
        inputs: Data versions of the tables that mixtures read.
        budget: Arms in all, the default included.
        log: Called with a line for every step.

    Raises:
        MvlError: There is no mixture but the default.
    """
    if record is None:
        require_trials(search, search.add_trials(min(budget - 1, N_SPREAD_TRIALS)))
        record = start_study(search.study, search.resolve_arms(), inputs, None)
    tally = run_arms(search.study, search.resolve_arms(), log)
    while len(search.study.arms) < budget and (scored_trials := search.read_trials()):
        arms = search.add_trials(1, scored_trials)
        if not arms:
            log(f"no further mixture takes other rows than the {len(search.study.arms)} before it: the search is over")
            break
        record = extend_study(record, search.study, arms)
        tally.add(run_arms(search.study, arms, log))
    return tally


def require_trials(search: MixtureSearch, trials: list[ResolvedArm]) -> None:
    """Check that there is something to try.

    Raises:
        MvlError: No mixture takes other rows than the default.
    """
    if not trials:
        raise MvlError(
            f"study {search.study.name}: no mixture with other shares fills the budget and takes other rows than the"
            " default",
            hint="lower the budget (--samples) where categories have too few rows, raise it where it is only a few",
        )


def find_best_trial(report: StudyReport) -> str | None:
    """Return the trial that gained most; None if none gained anything."""
    gains = list_gains(report)
    best = max(gains, key=lambda arm: gains[arm].difference, default=None)
    return best if best is not None and gains[best].difference > 0 else None


def build_confirmation(study: Study, trial: str, n_seeds: int) -> Study:
    """Return the study that trains a trial and the default again, with seeds that the search has not used."""
    first_seed = max(study.seeds) + 1
    changed: dict[str, Any] = {
        "name": f"{study.name}-{trial}",
        "description": f"Whether {trial} of {study.name} is better than the default with seeds that did not choose it",
        "arms": {DEFAULT_ARM: {}, trial: study.arms[trial]},
        "seeds": list(range(first_seed, first_seed + n_seeds)),
    }
    return parse_study(study.to_dict() | changed, f"study {changed['name']}")
