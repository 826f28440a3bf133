"""What a panel of judges decides, and how its agreement is counted."""

from __future__ import annotations

from collections import Counter

import pytest

from mvl_assets.config.profile import PanelRule
from mvl_assets.judging.kappa import compute_confusion
from mvl_assets.judging.panel import combine_verdicts, compute_panel_agreement
from mvl_assets.judging.verdict import Verdict


def verdict(p_yes: float | None, is_yes: bool | None = None) -> list[Verdict]:
    return [Verdict("accuracy", "k", (p_yes or 0) > 0.5 if is_yes is None else is_yes, p_yes)]


@pytest.mark.parametrize(
    ("rule", "p_yes", "expected"),
    [
        ("mean", (0.9, 0.8, 0.1), (True, 0.6)),
        ("mean", (0.9, 0.1), (False, 0.5)),
        ("majority", (0.9, 0.8, 0.1), (True, 0.8)),
        ("majority", (0.9, 0.1), (False, 0.1)),
        ("majority", (0.9, 0.2, 0.1), (False, 0.2)),
        ("unanimous", (0.9, 0.8, 0.1), (False, 0.1)),
        ("unanimous", (0.9, 0.8), (True, 0.8)),
    ],
)
def test_a_rule_decides_the_verdict_and_p_yes(rule: PanelRule, p_yes: tuple[float, ...], expected: tuple[bool, float]):
    (combined,) = combine_verdicts([verdict(p) for p in p_yes], rule)
    assert (combined.is_yes, combined.p_yes) == (expected[0], pytest.approx(expected[1]))


@pytest.mark.parametrize("rule", ["mean", "majority", "unanimous"])
def test_a_missing_verdict_is_a_no_and_an_unknown_p_yes_stays_unknown(rule: PanelRule):
    assert combine_verdicts([verdict(0.9), None], rule)[0].is_yes is False
    (unknown,) = combine_verdicts([verdict(0.9), verdict(None, is_yes=True)], rule)
    assert (unknown.is_yes, unknown.p_yes) == (True, None)
    alone = verdict(0.7)
    assert combine_verdicts([alone], rule) == alone


def test_agreement_is_counted_over_the_pairs_that_both_judges_judged():
    items = [(True, True, None), (True, False, False), (False, False, True), (True, True, True)]
    agreement = compute_panel_agreement(Counter(items))
    assert agreement.by_pair[0, 1] == compute_confusion((a, b) for a, b, _ in items)
    assert (agreement.by_pair[0, 2].n, agreement.n) == (3, 4)
    kappas = [confusion.kappa for confusion in agreement.by_pair.values()]
    assert agreement.kappa == pytest.approx(sum(k for k in kappas if k is not None) / 3)
    assert compute_panel_agreement({}).kappa is None
