"""Tables of the summary that a run ends with."""

from __future__ import annotations

from mvl_assets.judging.paper_reference import get_paper_keep_rate
from mvl_assets.lake_queries.summaries import CategorySummary
from mvl_assets.runner.summary import render_keep_rates


def test_the_papers_keep_rate_stands_beside_one_of_the_same_rule_only() -> None:
    paper_rate = f"{get_paper_keep_rate('chart'):.3f}"
    for keep_rules, is_shown in ((["all_yes"], True), (["p_yes >= 0.5"], False), (["all_yes", "p_yes >= 0.5"], False)):
        summary = CategorySummary("chart", n_judged=8, n_kept=2, keep_rules=frozenset(keep_rules))
        table = render_keep_rates([summary])
        assert "0.250" in table and (paper_rate in table) is is_shown
    assert render_keep_rates([CategorySummary("chart")]) == ""
