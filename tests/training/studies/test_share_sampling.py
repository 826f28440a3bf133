"""Shares that Optuna proposes: in their range, the same after a restart, and better by what was learnt."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.config.mixture_config import PAPER_SHARES, MixtureConfig
from mvl_training.studies.share_sampling import MAX_FACTOR, Shares, ShareSpace, ShareTrial

SINGLE, SEVERAL = MixtureConfig().list_competing_shares(["single_image", "one_vision"])
OPTIMUM = {"chart": 3.0, "ocr": 0.4, "general": 0.5, "language": 2.0}


@pytest.fixture(scope="module")
def space() -> ShareSpace:
    return ShareSpace([SINGLE, SEVERAL])


def propose(space: ShareSpace, n_shares: int, trials: list[ShareTrial]) -> list[Shares]:
    return list(itertools.islice(space.iter_proposals(trials), n_shares))


def compute_gain(space: ShareSpace, shares: Shares) -> float:
    """Points that fall with the distance from the optimum, in logarithms; 0 for the default."""
    factors = space.compute_factors(shares)

    def measure(of: dict[str, float]) -> float:
        return sum(math.log(of.get(c, 1.0) / OPTIMUM.get(c, 1.0)) ** 2 for c in factors)

    return measure({}) - measure(factors)


def test_categories_that_compete_for_rows_are_those_of_the_trained_stages() -> None:
    assert set(SINGLE) | set(SEVERAL) == set(PAPER_SHARES) and set(SEVERAL) == {"multi_image", "video"}
    assert MixtureConfig().list_competing_shares(["alignment", "single_image"]) == [SINGLE]
    assert MixtureConfig().list_competing_shares(["alignment"]) == []
    lonely = MixtureConfig(shares={"general": 1.0, "chart": 0.0, "video": 0.5, "multi_image": 0.5})
    assert lonely.list_competing_shares(["single_image"]) == []
    assert list(map(set, lonely.list_competing_shares(["one_vision"]))) == [{"video", "multi_image"}]


@given(factors=st.fixed_dictionaries(dict.fromkeys(SINGLE, st.floats(1 / MAX_FACTOR, MAX_FACTOR))))
def test_scaled_shares_stay_in_their_range_and_keep_their_sum(factors: dict[str, float]) -> None:
    shares = ShareSpace([SINGLE]).build_shares(factors)
    assert sum(shares.values()) == pytest.approx(sum(SINGLE.values()), rel=1e-3)
    assert all(1 / MAX_FACTOR <= shares[c] / SINGLE[c] * 1.001 <= MAX_FACTOR * 1.002 for c in SINGLE)
    ratios = [shares[category] / SINGLE[category] for category in sorted(SINGLE, key=lambda c: factors[c])]
    assert all(lower <= higher * 1.001 for lower, higher in itertools.pairwise(ratios))


def test_relative_shares_that_add_up_to_more_than_one_are_proposed_as_shares_of_one() -> None:
    space = ShareSpace([{"general": 1.0, "chart": 1.0}])
    assert space.defaults == {"general": 0.5, "chart": 0.5}
    assert sum(propose(space, 1, [])[0].values()) == pytest.approx(1.0)


def test_moved_shares_reach_the_default(space: ShareSpace) -> None:
    (shares,) = propose(space, 1, [])
    distances = []
    for _ in range(8):
        distances.append(max(abs(math.log(factor)) for factor in space.compute_factors(shares).values()))
        shares = space.move_to_default(shares)
    assert distances == sorted(distances, reverse=True) and distances[-1] < 0.05


def test_a_proposal_follows_from_the_trials_alone(space: ShareSpace) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = propose(space, 5, [])
    assert propose(space, 5, []) == first
    assert len({tuple(shares.items()) for shares in [*first, space.defaults]}) == 6
    trials = [ShareTrial(shares, compute_gain(space, shares)) for shares in first]
    assert propose(space, 2, trials) == propose(space, 2, trials)
    better = [ShareTrial(trials[0].shares, 99.0), *trials[1:]]
    assert propose(space, 1, better) != propose(space, 1, trials)


def test_later_trials_are_better_than_the_first_ones(space: ShareSpace) -> None:
    first = propose(space, 5, [])
    trials = [ShareTrial(shares, compute_gain(space, shares)) for shares in first]
    for _ in range(25):
        (shares,) = propose(space, 1, trials)
        trials.append(ShareTrial(shares, compute_gain(space, shares)))
    gains = [trial.gain for trial in trials]
    assert max(gains) > 0 and sum(gains[-5:]) / 5 > max(gains[:5])
    best = space.compute_factors(max(trials, key=lambda trial: trial.gain).shares)
    assert best["chart"] > best["ocr"]
