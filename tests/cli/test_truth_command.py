"""`mvl truth` and `mvl status --json`: what is true of drawings, and which planted faults the judge finds."""

from __future__ import annotations

from collections.abc import Callable

from mvl_assets.small_world.drawn_pairs import build_drawn_pairs
from mvl_assets.small_world.summary import N_DRAWINGS
from tests.cli.home import Home


def test_rewrites_are_held_against_the_drawings_and_planted_faults_are_asked_about_once(
    built: Home, copy_of: Callable[[Home], Home]
) -> None:
    home = copy_of(built)
    before = home.json("status")["truth"]
    assert before["rewrites"] >= before["true_before"] >= before["true_after"] >= 0 < before["rewrites"]
    assert before["planted"] is None, "nobody was asked"
    output = home.run("truth")
    assert "geo170k" in output and "faults planted in true answers" in output
    home.profile(model_base_urls=["http://127.0.0.1:9/v1"])
    after = home.json("status")["truth"]
    assert after["planted"] == len(build_drawn_pairs(N_DRAWINGS))
    assert 0 <= after["caught"] <= after["planted"] and 0 <= after["lost"] <= after["planted"]
    assert home.json("truth")["rewrites"]["all"]["all rewrites"] == {
        "rewrites": before["rewrites"],
        "true": before["true_before"],
    }


def test_a_lake_without_rewrites_says_what_to_do(raw: Home) -> None:
    assert "mvl demo-data, then mvl run" in raw.run("truth", "--no-faults")
    assert raw.json("status")["truth"] is None
