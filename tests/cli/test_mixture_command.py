"""`mvl plan mixture` and `mvl mixture diff`: what a profile would take, and what a change of it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mvl_assets.cli import cli
from mvl_assets.config.profile import load_profile
from mvl_assets.curation.mixing import build_mixture
from mvl_assets.errors import MvlError
from mvl_assets.orchestration.asset_keys import load_active_profile
from tests.cli.home import Home, lines_with
from tests.lake.rows import put_category

MIXTURE = {"alignment": 0, "single_image": 40, "one_vision": 0, "shares": {"chart": 0.5, "ocr": 0.5}}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A lake of three sources, of which two are rewritten, and its mixture."""
    home = Home(tmp_path)
    home.profile(mixture=MIXTURE)
    put_category(home.lake, "chart", "dvqa", 60)
    put_category(home.lake, "chart", "infographicvqa", 30, rewritten=4)
    put_category(home.lake, "ocr", "textvqa", 50, rewritten=40)
    build_mixture(home.lake, load_profile(str(tmp_path / "profile.yaml")), "single_image", run_id="one")
    load_active_profile.cache_clear()
    yield home
    load_active_profile.cache_clear()


def run(home: Home, *words: str) -> str:
    result = CliRunner().invoke(cli, words, env=home.environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def run_json(home: Home, *words: str) -> Any:
    return json.loads(run(home, *words, "--json"))


def test_a_plan_says_per_source_what_the_stored_mixture_has_and_what_runs_short(home: Home) -> None:
    plans = {plan["stage"]: plan for plan in run_json(home, "plan", "mixture")}
    stored = list(home.lake.get_table("mixture/single_image").iter_rows(["source", "kind"]))
    fills = plans["single_image"]["source_fills"]
    assert {fill["source"] for fill in fills} == {"dvqa", "infographicvqa", "textvqa"}
    for fill in fills:
        assert fill["selected"] == sum(row["source"] == fill["source"] for row in stored)
    output = run(home, "plan", "mixture")
    assert "single_image: 45% of 40 rows are rewritten, 70% wanted" in output
    assert lines_with(output, ["chart", "20% rewritten, not 70%: only 4 can be taken"])
    assert "shares missed: 1; the checks of mixture/single_image will warn" in output
    assert lines_with(run(home, "plan", "mixture", "--source", "dvqa"), ["dvqa"])
    assert not lines_with(run(home, "plan", "mixture", "--category", "ocr"), ["dvqa"])


def test_a_difference_shows_shares_and_rows_gained_and_lost(home: Home) -> None:
    home.profile(mixture=MIXTURE | {"sources": {"dvqa": {"share": 1.0}}, "rewritten_share": 0.0})
    words = ("mixture", "diff", "stored", str(home.folder / "profile.yaml"))
    differences = run_json(home, *words)
    assert sum(d["n_before"] for d in differences) == sum(d["n_after"] for d in differences) == 40
    assert not any(d["n_after"] for d in differences if d["source"] == "infographicvqa")
    output = run(home, *words)
    assert lines_with(output, ["all", "40", "100.0%", "45.0%"])
    assert lines_with(output, ["dvqa", "50.0%"])
    version = home.lake.get_table("mixture/single_image").version
    assert lines_with(run(home, "mixture", "diff", "stored", str(version)), ["all", "40", "0"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("diff", "stored", "999"), "has no version 999"),
        (("diff", "stored", "nobody"), "there is no profile 'nobody'"),
        (("diff", "stored", "stored", "--stage", "one_vision"), "there is no mixture one_vision"),
    ],
)
def test_what_cannot_be_compared_is_an_error(home: Home, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(MvlError, match=message):
        CliRunner().invoke(cli, ["mixture", *words], env=home.environment, catch_exceptions=False)


def test_a_mistake_in_the_profile_is_an_error_before_anything_is_read(home: Home) -> None:
    home.profile(mixture=MIXTURE | {"sources": {"dvqqa": {"share": 0.5}}})
    with pytest.raises(MvlError, match=r"sources\.dvqqa: there is no such source\. did you mean `dvqa`"):
        run(home, "plan", "mixture")
    load_active_profile.cache_clear()
    home.profile(mixture=MIXTURE | {"strata": {"column": "p_yess", "edges": [0.5]}})
    with pytest.raises(MvlError, match="no column 'p_yess'"):
        run(home, "plan", "mixture")
