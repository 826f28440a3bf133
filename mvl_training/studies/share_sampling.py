"""Mixture shares that Optuna proposes: of each category from a quarter of its default share to four times that.

What the trials gained is told to a new study of Optuna's every time. So the lake is the only state there is, and a
proposal follows from the trials before it alone, whether or not the search was interrupted. The first proposals spread
evenly (Sobol's sequence, scrambled), the later ones are drawn by TPE (tree-structured Parzen estimators, Bergstra et
al. 2011).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SEARCH_PACKAGES = ("optuna", "scipy")
MAX_FACTOR = 4.0
N_SPREAD_TRIALS = 5
"""Trials that are proposed before any of them has a score."""

SEED = 0
SIGNIFICANT_DIGITS = 4

Shares = dict[str, float]


@dataclass(frozen=True, slots=True)
class ShareTrial:
    """Shares that were tried, and what they gained over the default, in points of 100."""

    shares: Mapping[str, float]
    gain: float


class ShareSpace:
    """The shares that may be tried.

    Args:
        groups: Default shares of the categories that compete for the same rows; their sum stays as it is, or is 1 where
            they are relative to each other and add up to more.
    """

    def __init__(self, groups: Sequence[Mapping[str, float]]) -> None:
        self._groups = [
            {category: share / max(1.0, sum(group.values())) for category, share in group.items()} for group in groups
        ]
        self.defaults: Shares = {category: share for group in self._groups for category, share in group.items()}

    def build_shares(self, factors: Mapping[str, float]) -> Shares:
        """Return the default shares times factors, each kept in its range, and their sums as they were."""
        shares = {c: share for group in self._groups for c, share in _apply_factors(group, factors).items()}
        return {category: float(f"{share:.{SIGNIFICANT_DIGITS}g}") for category, share in shares.items()}

    def move_to_default(self, shares: Mapping[str, float]) -> Shares:
        """Return the shares half the way back to the default, on a scale of logarithms."""
        return self.build_shares({c: math.sqrt(factor) for c, factor in self.compute_factors(shares).items()})

    def compute_factors(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return by how much each share is larger than the default."""
        ratios = {category: shares[category] / default for category, default in self.defaults.items()}
        return {category: min(max(ratio, 1 / MAX_FACTOR), MAX_FACTOR) for category, ratio in ratios.items()}

    def iter_proposals(self, trials: Sequence[ShareTrial]) -> Iterator[Shares]:
        """Yield shares to try next, for as long as more are wanted; the trials are told the sampler in their order."""
        import optuna
        from optuna.distributions import BaseDistribution, FloatDistribution
        from optuna.exceptions import ExperimentalWarning

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = (
                optuna.samplers.TPESampler(seed=SEED + len(trials), n_startup_trials=0)
                if trials
                else optuna.samplers.QMCSampler(scramble=True, seed=SEED)
            )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        distributions: dict[str, BaseDistribution] = {
            category: FloatDistribution(1 / MAX_FACTOR, MAX_FACTOR, log=True) for category in self.defaults
        }
        for trial in [ShareTrial(self.defaults, 0.0), *trials]:
            factors = self.compute_factors(trial.shares)
            study.add_trial(optuna.trial.create_trial(params=factors, distributions=distributions, value=trial.gain))
        while True:
            yield self.build_shares(study.ask(distributions).params)


def _apply_factors(defaults: Mapping[str, float], factors: Mapping[str, float]) -> Shares:
    """Return defaults times factors times the one number that leaves the sum of the defaults, each in its range."""

    def compute_shares(scale: float) -> Shares:
        return {
            category: default * min(max(scale * factors[category], 1 / MAX_FACTOR), MAX_FACTOR)
            for category, default in defaults.items()
        }

    low, high, total = 0.0, MAX_FACTOR**2, sum(defaults.values())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(compute_shares(middle).values()) <= total else (low, middle)
    return compute_shares(low)
