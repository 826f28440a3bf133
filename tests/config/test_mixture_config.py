"""Mixtures that cannot be: one clear error when the profile is read."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.config.mixture_sources import require_reachable_shares
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.errors import MvlError

CHART_SOURCES = ["dvqa", "plotqa", "infographicvqa"]


def make_profile(mixture: dict[str, Any], sources: Any = CHART_SOURCES) -> Profile:
    """The demo's profile with this mixture, by default of 100 rows of charts."""
    small = {"alignment": 0, "single_image": 100, "one_vision": 0, "shares": {"chart": 1.0}}
    return load_profile("demo").model_copy(
        update={"sources": sources, "mixture": MixtureConfig.model_validate(small | mixture)}
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shares": {"chart": 1.5}}, r"shares\.chart"),
        ({"sources": {"dvqa": {"share": 1.5}}}, r"sources\.dvqa\.share"),
        ({"sources": {"dvqa": {"weight": 1}}}, r"sources\.dvqa\.weight"),
        ({"temperature": 0}, "temperature"),
        ({"shares": {"chart": 0.0}}, "nothing is left for single_image"),
        ({"shares": {}}, "nothing is left for single_image"),
        ({"shares": {"chart": 1.0}, "one_vision": 8}, "nothing is left for 4 rows of one_vision"),
        ({"shares": {"video": 1.0}, "single_image": 0, "one_vision": 8}, "4 rows of one_vision: give a single-image"),
        ({"strata": {"column": "p_yes", "edges": [0.8, 0.5]}}, "have to be finite and to rise"),
        ({"strata": {"column": "p_yes", "edges": [0.5], "shares": [1.0]}}, "1 edges make 2 strata; shares has 1"),
        ({"strata": {"column": "p_yes", "edges": [0.5], "shares": [0, 0]}}, "nothing is left"),
    ],
)
def test_a_mixture_that_contradicts_itself_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_profile(changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sources": {"dvqaa": {"share": 0.5}}}, r"sources\.dvqaa: there is no such source\. did you mean `dvqa`"),
        ({"sources": {"figureqa_mathv360k": {"share": 0.5}}}, "of group C, which no mixture takes"),
        ({"sources": {"tat_qa": {"share": 0.5}}}, "not among the `sources` of the profile"),
        ({"sources": {"dvqa": {"share": 0.7}, "plotqa": {"share": 0.7}}}, r"\(dvqa, plotqa\) add up to 1\.4"),
        ({"sources": {s: {"share": 0.2} for s in CHART_SOURCES}}, r"add up to 0\.6, and there is no other source"),
        ({"sources": {"dvqa": {"share": 0.5, "max_rows": 40}}}, "0.5 of chart's 100 rows is 50 rows, and its cap 40"),
        ({"max_source_rows": 30}, "caps of chart's 3 sources allow 90 rows, and its share is 100 rows"),
        ({"max_source_rows": 34, "sources": {"dvqa": {"share": 0}}}, "allow 68 rows, and its share is 100 rows"),
    ],
)
def test_shares_and_caps_of_sources_that_cannot_be_reached_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(MvlError, match=message) as caught:
        require_reachable_shares(make_profile(changed))
    assert str(caught.value).startswith("profile demo: mixture: ")


def test_a_share_of_a_source_whose_category_has_no_rows_is_refused() -> None:
    with pytest.raises(MvlError, match=r"sources\.textvqa: its category ocr has no rows"):
        require_reachable_shares(make_profile({"sources": {"textvqa": {"share": 0.5}}}, sources="all"))


def test_what_can_be_reached_passes() -> None:
    sources = {"dvqa": {"share": 0.5}, "plotqa": {"share": 0.3, "max_rows": 30}, "infographicvqa": {"share": 0.2}}
    require_reachable_shares(make_profile({"sources": sources}))
    require_reachable_shares(make_profile({"max_source_rows": 34}))
    require_reachable_shares(make_profile({}))
