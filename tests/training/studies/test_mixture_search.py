"""A search for mixture shares: trials that the lake can fill, what is refused before it, and what is said after it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mvl_assets.cli import cli
from mvl_assets.common.installation import require_packages
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.errors import MvlError
from mvl_assets.orchestration.asset_keys import load_active_profile
from mvl_training.studies import record
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
)
from mvl_training.studies.results import build_report
from mvl_training.studies.search_cli import describe_gain
from mvl_training.studies.study import Study, parse_study
from tests.cli.home import Home
from tests.patience import wait_until
from tests.training.studies import drawn_project, drawn_scores


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A lake of three sources with 30 drawn samples each, of which about 21 may be trained on."""
    home = drawn_project.make_project(tmp_path_factory.mktemp("search"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home.environment.items():
            patch.setenv(name, value)
        patch.setenv("MVL_PROJECT", str(home.project))
        drawn_project.fill_lake(home)
        load_active_profile.cache_clear()
        yield home
    load_active_profile.cache_clear()


@pytest.fixture
def profile(home: Home) -> Profile:
    return load_profile(str(home.folder / "profile.yaml"))


def make_search(profile: Profile, home: Home, **changed: Any) -> MixtureSearch:
    data = {"name": "found", "arms": {DEFAULT_ARM: {}}, "seeds": [0]}
    return MixtureSearch(home.lake, profile, build_search(parse_study(data | changed, "test"), profile))


def test_trials_fill_the_budget_with_other_rows_each_and_are_the_same_again(home: Home, profile: Profile) -> None:
    search = make_search(profile, home)
    assert search.study.budget.samples == {"single_image": 24}
    arms = search.add_trials(5)
    assert [arm.arm_id.arm for arm in arms] == [f"trial-0{number}" for number in range(1, 6)]
    targets = [arm.profile.mixture.compute_targets("single_image") for arm in search.resolve_arms()]
    assert {sum(target.values()) for target in targets} == {24}
    assert len({tuple(target.items()) for target in targets}) == 6
    assert {arm.recipe.get_stage("single_image").steps for arm in arms} == {4}
    again = make_search(profile, home)
    again.add_trials(5)
    assert again.study == search.study
    require_search(search.study)


def test_shares_that_the_lake_cannot_fill_are_moved_to_the_default(home: Home, profile: Profile) -> None:
    tight = make_search(
        profile,
        home,
        budget={"samples": {"single_image": 36}},
        settings={f"mixture.shares.{category}": 1 / 3 for category in drawn_project.QUESTIONS},
    )
    assert len(tight.add_trials(3)) == 3
    for arm in tight.resolve_arms():
        assert max(arm.profile.mixture.compute_targets("single_image").values()) < 25


def test_a_search_ends_where_no_mixture_is_left(home: Home, profile: Profile) -> None:
    tiny = make_search(profile, home, budget={"samples": {"single_image": 2}})
    trials = tiny.add_trials(20)
    assert 0 < len(trials) < 20
    with pytest.raises(MvlError, match="no mixture with other shares fills the budget"):
        require_trials(tiny, [])


def test_what_cannot_be_searched_is_refused(home: Home, profile: Profile) -> None:
    with pytest.raises(MvlError, match=r"mixture/single_image has \d+ rows of 99"):
        make_search(profile, home, budget={"samples": {"single_image": 99}})
    lonely = {"mixture.shares.chart": 0.0, "mixture.shares.ocr": 0.0}
    with pytest.raises(MvlError, match="have no two categories to weigh"):
        make_search(profile, home, settings=lonely, budget={"samples": {"single_image": 4}})
    with pytest.raises(MvlError, match="nothing is held out"):
        make_search(profile.model_copy(update={"holdout_fraction": 0.0}), home)
    with pytest.raises(MvlError, match="51 arms with 2 seeds: 100 in all at most"):
        require_budget(make_search(profile, home, seeds=[0, 1]).study, 51)
    with pytest.raises(MvlError, match="is no search for mixture shares"):
        require_search(drawn_scores.STUDY)
    with pytest.raises(MvlError, match="a search needs no_such_package, not installed here"):
        require_packages("a search", ("json", "no_such_package"), extra="search")
    assert record.list_started_studies() == []


def test_a_search_that_was_started_is_extended_by_its_record(home: Home, profile: Profile) -> None:
    search = make_search(profile, home, name="extended")
    search.add_trials(1)
    started = record.start_study(search.study, search.resolve_arms(), {"category/chart": "1"}, None)
    new_arms = search.add_trials(1)
    record.extend_study(started, search.study, new_arms)
    extended = record.require_record("extended")
    assert list(extended.study.arms) == [DEFAULT_ARM, "trial-01", "trial-02"]
    record.require_same_inputs(extended, search.resolve_arms(), {"category/chart": "1"})
    assert len(extended.arm_digests) == 3 and extended.study == search.study
    record.remove_study(home.lake, "extended")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "1"), "1 is not in the range 2<=x<=100"),
        ((), "Missing option '--budget'"),
        (("--budget", "4", "--samples", "single_image"), "write KEY=VALUE"),
    ],
)
def test_the_command_names_what_is_wrong_with_its_options(home: Home, words: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(cli, ["mix", "search", *words], env=home.environment)
    assert result.exit_code == 2 and message in result.output, result.output


def test_a_gain_is_claimed_only_outside_the_noise_and_with_other_seeds() -> None:
    def measure(gain: float, seeds: int) -> tuple[Study, Any]:
        study = drawn_scores.STUDY
        report = build_report(study, drawn_scores.draw_rows(gain, seeds=seeds))
        return study, list_gains(report).get("other")

    study, lucky = measure(0.3, 1)
    unconfirmed = describe_gain(study, 7, lucky, None)
    assert "best of 7 trials" in unconfirmed[0] and "looks better than it is" in unconfirmed[0]
    assert "not confirmed" in unconfirmed[-1]
    confirmed = describe_gain(study, 7, lucky, measure(0.3, 3)[1])
    assert (
        "with seeds that did not choose it (3)" in confirmed[1] and "other is better than the default" in confirmed[-1]
    )
    vanished = describe_gain(study, 7, lucky, replace(lucky, seed_spread=1.0, ci_low=-1.0, ci_high=2.0))
    assert "the interval includes 0: nothing shows that other is better" in vanished[-1]
    worse = describe_gain(study, 7, lucky, replace(lucky, seed_spread=1.0, difference=-3.0, ci_low=-5.0, ci_high=-1.0))
    assert "other is worse than the default" in worse[-1]
    assert "one seed does not tell" in describe_gain(study, 7, lucky, lucky)[-1]


def test_the_best_trial_is_confirmed_with_seeds_that_did_not_choose_it(home: Home, profile: Profile) -> None:
    search = make_search(profile, home, seeds=[0, 1])
    search.add_trials(2)
    confirmation = build_confirmation(search.study, "trial-02", 3)
    assert (confirmation.name, confirmation.seeds) == ("found-trial-02", [2, 3, 4])
    assert confirmation.arms == {DEFAULT_ARM: {}, "trial-02": search.study.arms["trial-02"]}
    assert confirmation.budget == search.study.budget
    report = build_report(drawn_scores.STUDY, drawn_scores.draw_rows(0.3))
    assert find_best_trial(report) == "other"
    assert find_best_trial(build_report(drawn_scores.STUDY, drawn_scores.draw_rows(-0.3))) is None


@pytest.mark.soak
def test_a_search_that_is_killed_goes_on_and_trains_nothing_twice(home: Home) -> None:
    words = ("mix", "search", "--budget", "3", "--confirm", "0")
    process = home.start(*words)
    states = home.folder / "studies" / "mix-search" / "arms"
    first = states / "default" / "0" / "state.json"
    wait_until(lambda: first.is_file() and json.loads(first.read_text())["evaluation"])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for child in home.processes():
        child.kill()
    logs = {path: path.stat().st_mtime_ns for path in (home.folder / "checkpoints").rglob("result.json")}
    proposed = record.require_record("mix-search").study
    output = home.run(*words)
    assert logs and all(path.stat().st_mtime_ns == time for path, time in logs.items()), "nothing is trained twice"
    assert "default seed 0" not in output, "finished arms are left alone"
    finished = record.require_record("mix-search").study
    assert finished == proposed and list(finished.arms) == [DEFAULT_ARM, "trial-01", "trial-02"]
    gains = home.json("study", "report", "mix-search")["differences"]
    assert [gain["arm"] for gain in gains] == ["trial-01", "trial-02"]
    assert all(f"{share:.3g}" in output for share in get_shares(finished, "trial-01").values())

    home.run("mix", "search", "--budget", "4", "--confirm", "0")
    longer = home.json("study", "report", "mix-search")["differences"]
    assert [gain["arm"] for gain in longer] == ["trial-01", "trial-02", "trial-03"]
    assert longer[:2] == gains, "a larger budget goes on with the same search"
    done = home.mvl("mix", "search", "--budget", "4", "--samples", "single_image=12")
    assert done.returncode == 1 and "was started with another budget" in done.stderr
    assert Path(states / "trial-03" / "0" / "state.json").is_file()
