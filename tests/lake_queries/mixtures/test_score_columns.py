"""Filters over what judges, probes and scorers say of a row."""

from __future__ import annotations

from typing import Any

import pytest

from mvl_assets.curation.mixing import plan_mixtures, resolve_filter
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import JUDGED, SCORED
from tests.curation.mixture_profile import profile
from tests.lake.rows import judgement, put, put_category, rewrite


def say(p_yes: float | None) -> list[dict[str, Any]]:
    return [{"criterion": "accuracy", "verdict": True, "p_yes": p_yes}, {"criterion": "relevance", "p_yes": 1.0}]


def count_refused(lake: Lake, where: str, panel_rule: str = "majority") -> tuple[int, int, int]:
    """Return the rows that a filter refuses, those it cannot decide, and all."""
    base = profile(single_image=10)
    judging = base.judging.model_copy(update={"panel_rule": panel_rule})
    (plan,) = plan_mixtures(lake, base.model_copy(update={"where": where, "judging": judging}), ["single_image"])
    (clause,) = plan.clauses
    return clause.refused, clause.unknown, clause.rows


@pytest.mark.parametrize(
    ("panel_rule", "refused", "unknown"), [("majority", 2, 2), ("mean", 2, 2), ("unanimous", 3, 2)]
)
def test_p_yes_of_a_criterion_is_the_panels(lake: Lake, panel_rule: str, refused: int, unknown: int) -> None:
    rows = put_category(lake, "ocr", "a", 6, rewritten=5)
    own = [0.9, 0.2, None, 0.9, 0.9]
    panels: list[Any] = [
        None,
        None,
        None,
        # The median of three is 0.9, their mean 0.66, the lowest 0.1.
        [{"model": "b", "verdicts": say(0.1)}, {"model": "c", "verdicts": say(0.98)}],
        # Who says nothing says No.
        [{"model": "b", "verdicts": None}, {"model": "c", "verdicts": None}],
    ]
    verdicts = [
        judgement(rewrite(row, "ocr"), keep=True) | {"verdicts": say(p), "panel": panel}
        for row, p, panel in zip(rows, own, panels, strict=False)
    ]
    put(lake, "judged/ocr", JUDGED, verdicts, "a")
    assert count_refused(lake, "p_yes.accuracy >= 0.5", panel_rule) == (refused, unknown, 6)


def test_needs_image_and_scores_of_originals_and_rewrites(lake: Lake) -> None:
    rows = put_category(lake, "ocr", "a", 4, rewritten=2)
    rewrites = [rewrite(row, "ocr") for row in rows[:2]]
    verdicts = [
        judgement(made, keep=True) | {"needs_image": needs} for made, needs in zip(rewrites, [True, False], strict=True)
    ]
    put(lake, "judged/ocr", JUDGED, verdicts, "a")
    assert count_refused(lake, "needs_image") == (1, 2, 4)
    scored = [
        {"scored_id": f"{n:032x}", "rewrite_id": made and made["rewrite_id"], "source": "a", "content": content}
        | {name: row[name] for name in ("sample_id", "version_id")}
        for n, (row, made, content) in enumerate([(rows[0], rewrites[0], 5), (rows[0], None, 1), (rows[3], None, 2)])
    ]
    put(lake, "scored/ocr", SCORED, scored, "a")
    assert count_refused(lake, "content_score >= 3") == (1, 2, 4)
    assert count_refused(lake, "content_score is not null") == (2, 0, 4)


def test_a_criterion_that_no_judge_is_asked_is_refused_when_the_profile_is_read() -> None:
    resolve_filter(profile().model_copy(update={"where": "p_yes.accuracy > 0.5 and relevance_score > 2"}))
    with pytest.raises(MvlError) as caught:
        resolve_filter(profile().model_copy(update={"where": "p_yes.beauty > 0.5"}))
    assert "no column p_yes.beauty" in caught.value.message
