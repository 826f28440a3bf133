"""Quotas: what a stage takes of each source, kind and stratum, from counts alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.curation.missed_shares import describe_total_rewrites, list_missed_rewrites, list_missed_rows
from mvl_assets.curation.quotas import StageFill, apportion_within, fill_stage
from mvl_assets.lake_queries.mixtures.candidates import Cell


def mixture(rows: int = 100, **changed: Any) -> MixtureConfig:
    return MixtureConfig.model_validate(
        {"shares": {"chart": 1.0}, "single_image": rows, "one_vision": 0, "rewritten_share": 0.0} | changed
    )


def counts(**rows: int) -> dict[Cell, int]:
    return {Cell("chart", source, "original"): n for source, n in rows.items()}


def by_source(filled: StageFill) -> dict[str, int]:
    return {fill.source: fill.selected for fill in filled.sources}


# -- rounding -------------------------------------------------------------------------------------------------------

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0, 1), st.integers(0, 50)), min_size=1)


@settings(derandomize=True, database=None, deadline=None)
@given(st.integers(0, 200), WEIGHTS)
def test_whole_rows_stay_within_their_limits_and_a_larger_total_takes_no_row_away(
    total: int, parts: dict[str, tuple[float, int]]
) -> None:
    weights, limits = ({name: part[index] for name, part in parts.items()} for index in (0, 1))
    small, large = (apportion_within(n, weights, limits) for n in (total, total + 1))
    assert sum(small.values()) == min(total, sum(n for name, n in limits.items() if weights[name] > 0))
    assert all(0 <= n <= limits[name] for name, n in small.items())
    assert all(n <= large[name] for name, n in small.items())


def test_what_one_source_cannot_take_the_others_take_in_proportion() -> None:
    assert apportion_within(100, {"a": 1, "b": 2, "c": 2}, {"a": 100, "b": 10, "c": 100}) == {"a": 30, "b": 10, "c": 60}
    assert apportion_within(10, {"a": 1, "b": 1}, {"a": 10, "b": 10}, {"a": 8, "b": 0}) == {"a": 8, "b": 2}


# -- sources --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "rows"),
    [
        ({}, {"large": 90, "small": 10}),
        ({"temperature": 2.0}, {"large": 75, "small": 25}),
        ({"temperature": 1e6}, {"large": 50, "small": 50}),
        ({"sources": {"small": {"share": 0.4}}}, {"large": 60, "small": 40}),
        ({"sources": {"small": {"share": 0.0}}}, {"large": 100, "small": 0}),
        ({"sources": {"large": {"max_rows": 30}}}, {"large": 30, "small": 70}),
        ({"max_source_rows": 50}, {"large": 50, "small": 50}),
        ({"max_source_rows": 50, "sources": {"large": {"max_rows": 80}}}, {"large": 80, "small": 20}),
    ],
)
def test_sources_are_taken_by_size_temperature_share_and_cap(changed: dict[str, Any], rows: dict[str, int]) -> None:
    filled = fill_stage(mixture(**changed), "single_image", counts(large=900, small=100))
    assert by_source(filled) == rows
    assert filled.categories[0].shortfall == 0


def test_a_source_that_runs_short_is_filled_by_the_others_and_named() -> None:
    wants = mixture(sources={"small": {"share": 0.5}})
    filled = fill_stage(wants, "single_image", counts(large=900, small=20))
    assert [(f.source, f.target, f.selected, f.reason) for f in filled.sources] == [
        ("large", 50, 80, "fills for others"),
        ("small", 50, 20, "only 20 rows"),
    ]
    assert list_missed_rows(wants, filled.categories, filled.sources) == ["small: 20% of chart, not 50% (only 20 rows)"]


def test_a_small_source_is_repeated_to_its_share_with_upsample() -> None:
    wants = mixture(sources={"small": {"share": 0.5}}, upsample=True)
    filled = fill_stage(wants, "single_image", counts(large=900, small=20))
    assert by_source(filled) == {"large": 50, "small": 50}
    assert [(q.n_rows, q.repeat_index) for q in filled.quotas if q.cell.source == "small"] == [
        (20, 0),
        (20, 1),
        (10, 2),
    ]
    assert not list_missed_rows(wants, filled.categories, filled.sources)
    capped = mixture(sources={"small": {"max_rows": 30}, "large": {"max_rows": 5}}, upsample=True)
    assert by_source(fill_stage(capped, "single_image", counts(large=9, small=20))) == {"large": 5, "small": 30}


# -- kinds ----------------------------------------------------------------------------------------------------------


def test_rewritten_rows_reach_their_share_of_the_category_not_of_each_source() -> None:
    there = {
        Cell("chart", "a", "original"): 900,
        Cell("chart", "b", "original"): 100,
        Cell("chart", "b", "rewritten"): 500,
    }
    wants = mixture(rewritten_share=0.7)
    filled = fill_stage(wants, "single_image", there)
    (fill,) = filled.categories
    assert (fill.selected, fill.rewritten) == (100, 70)
    assert not list_missed_rewrites(wants, filled.categories)
    # A share of a source goes first: what it cannot give is missing, and said.
    limited = mixture(rewritten_share=0.7, sources={"b": {"share": 0.3}})
    filled = fill_stage(limited, "single_image", there)
    assert filled.categories[0].rewritten == 30
    assert list_missed_rewrites(limited, filled.categories) == [
        "chart: 30% of 100 rows are rewritten, not 70% (shares and caps of sources)"
    ]


def test_a_share_of_rewritten_rows_that_is_not_reached_is_named_with_both_numbers() -> None:
    there = {Cell("chart", "b", "original"): 900, Cell("chart", "b", "rewritten"): 19}
    wants = mixture(rewritten_share=0.7)
    filled = fill_stage(wants, "single_image", there)
    assert filled.categories[0].shortfall == 0
    assert list_missed_rewrites(wants, filled.categories) == [
        "chart: 19% of 100 rows are rewritten, not 70% (only 19 can be taken)"
    ]
    assert describe_total_rewrites(wants, filled.categories) == "19% of 100 rows are rewritten, 70% wanted"
    tolerant = mixture(rewritten_share=0.7, tolerance=0.6)
    assert not list_missed_rewrites(tolerant, filled.categories)


def test_a_category_of_group_b_without_rewrites_misses_its_share_and_one_of_group_a_has_none() -> None:
    wants = mixture(rewritten_share=0.7)
    of_group_a = fill_stage(wants, "single_image", counts(a=900))
    assert not list_missed_rewrites(wants, of_group_a.categories)
    of_group_b = fill_stage(wants, "single_image", counts(a=900), frozenset({"chart"}))
    assert list_missed_rewrites(wants, of_group_b.categories) == [
        "chart: 0% of 100 rows are rewritten, not 70% (none can be taken)"
    ]


# -- strata ---------------------------------------------------------------------------------------------------------


def test_strata_are_taken_evenly_and_rows_without_a_value_fill_what_they_lack() -> None:
    there = {Cell("chart", "a", "original", stratum): n for stratum, n in {"x": 500, "y": 10, "z": 30, "": 60}.items()}
    taken = {
        rows: {q.cell.stratum: q.n_rows for q in fill_stage(mixture(rows), "single_image", there).quotas}
        for rows in (24, 100, 590)
    }
    assert taken[24] == {"x": 8, "y": 8, "z": 8}
    assert taken[100] == {"x": 60, "y": 10, "z": 30}
    assert taken[590] == {"x": 500, "y": 10, "z": 30, "": 50}


def test_a_stratum_of_share_0_is_not_there() -> None:
    strata = {"column": "p_yes", "edges": [0.5, 0.8], "shares": [0, 0.25, 0.75]}
    there = {Cell("chart", "a", "original", stratum): 500 for stratum in ("0: < 0.5", "1: 0.5 to 0.8", "2: >= 0.8")}
    filled = fill_stage(mixture(strata=strata), "single_image", there)
    assert {q.cell.stratum: q.n_rows for q in filled.quotas} == {"1: 0.5 to 0.8": 25, "2: >= 0.8": 75}
    assert filled.sources[0].available == 1000
