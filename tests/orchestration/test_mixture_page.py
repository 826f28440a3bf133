"""The page of a mixture: what was wanted and what was reached, in its tables and in the results of its checks."""

from __future__ import annotations

import base64
from dataclasses import replace

import dagster as dg
import pytest

from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.curation.mixing import MixturePlan
from mvl_assets.curation.quotas import fill_stage
from mvl_assets.lake_queries.mixtures.candidates import Cell, KeptRewrites
from mvl_assets.orchestration.mixture_page import (
    REWRITES_CHECK,
    TARGETS_CHECK,
    build_share_checks,
    build_share_results,
    render_fills,
    render_kept_rewrites,
    render_source_fills,
)

KEY = dg.AssetKey(["mixture", "single_image"])


def plan(mixture: MixtureConfig, n_rewritten: int) -> MixturePlan:
    counts = {Cell("chart", "a<b", "original"): 900, Cell("chart", "a<b", "rewritten"): n_rewritten}
    filled = fill_stage(mixture, "single_image", counts)
    return MixturePlan("single_image", filled.categories, filled.sources, [], [], [])


@pytest.mark.parametrize(
    ("missed_shares", "severity"), [("warn", dg.AssetCheckSeverity.WARN), ("block", dg.AssetCheckSeverity.ERROR)]
)
def test_a_share_of_rewritten_rows_that_is_missed_warns_or_blocks_with_both_numbers(
    missed_shares: str, severity: dg.AssetCheckSeverity
) -> None:
    mixture = MixtureConfig.model_validate(
        {"shares": {"chart": 1}, "single_image": 100, "one_vision": 0, "missed_shares": missed_shares}
    )
    for n_rewritten, passed in ((19, False), (500, True)):
        results = {r.check_name: r for r in build_share_results(KEY, mixture, plan(mixture, n_rewritten))}
        assert results[TARGETS_CHECK].passed
        assert (results[REWRITES_CHECK].passed, results[REWRITES_CHECK].severity) == (passed, severity)
    missed = {r.check_name: r for r in build_share_results(KEY, mixture, plan(mixture, 19))}[REWRITES_CHECK]
    assert missed.description == (
        "19% of 100 rows are rewritten, 70% wanted; "
        "chart: 19% of 100 rows are rewritten, not 70% (only 19 can be taken)"
    )
    assert {check.blocking for check in build_share_checks(KEY, mixture)} == {missed_shares == "block"}


def test_the_tables_show_wanted_and_reached_and_escape_names() -> None:
    mixture = MixtureConfig(shares={"chart": 1.0}, single_image=100, one_vision=0)
    page = str(render_fills(mixture, plan(mixture, 19)).value)
    assert "| chart | 100 | 100 | 919 | 70% | 19% &#40;19&#41; | 19 | only 19 can be taken |" in page
    assert page.startswith("![wanted and reached shares](data:image/png;base64,")
    sources = str(render_source_fills(plan(mixture, 19)).value)
    assert "| a&#60;b | chart | 100 | 100 | 81 | 19 | 919 |" in sources


def test_kept_rewrites_are_shown_as_a_flow() -> None:
    kept = KeptRewrites("chart", 90, outdated=5, held_out=6, excluded=7, unlicensed=0, filtered=2, available=70)
    filled = plan(MixtureConfig(shares={"chart": 1.0}, single_image=50, one_vision=0), 70)
    page = str(render_kept_rewrites(replace(filled, kept_rewrites=[kept])).value)
    svg = base64.b64decode(page.partition("base64,")[2].partition(")")[0]).decode()
    for text in ("chart 90", "in the mixture 35", "not taken 35", "held out 6", "refused by the filter 2"):
        assert f">{text}</text>" in svg
    assert "licences" not in svg, "nothing is refused for its licences"
    assert "| chart | 35 of 90 |" in page
    assert "svg" not in str(render_kept_rewrites(filled).value), "nothing was kept"
