"""Checks of a raw asset: a suggested group with its reason, and benchmarks by name."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from mvl_assets.common import metadata_keys
from mvl_assets.components.source_checks import build_benchmark_result, build_screening_result, render_screening_table
from mvl_assets.config.catalog import SourceSpec, load_catalog
from mvl_assets.curation.screening import MIN_ROWS, ImageSizes, Quantiles, ScreeningReport

KEY = dg.AssetKey(["raw", "x"])
SHORT = ScreeningReport(
    n_rows=MIN_ROWS,
    n_total=52_000,
    n_copies=7,
    n_answers=412,
    answer_chars=Quantiles(4, 9),
    answer_words=Quantiles(1, 2),
    one_word_share=0.9,
    most_frequent_share=0.2,
    answers_per_sample=Quantiles(2, 3),
    script_shares={"Latin": 0.75, "CJK": 0.25},
    image_sizes=ImageSizes(190, 640, 480, 32, 5_000, 0.125),
    examples=[],
)


def declared(group: str) -> SourceSpec:
    return load_catalog()["tabmwp"].model_copy(update={"group": group})


def test_screening_passes_with_a_reason_for_a_source_like_its_group() -> None:
    result = build_screening_result(KEY, declared("B"), SHORT)
    assert result.passed and result.description is not None and "one word" in result.description


def test_screening_warns_with_a_reason_for_a_source_like_another_group() -> None:
    result = build_screening_result(KEY, declared("A"), SHORT)
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert result.description is not None and result.description.startswith("declared A, looks like B: answers are")
    assert result.metadata[metadata_keys.SUGGESTED_GROUP].value == "B"
    assert result.metadata[metadata_keys.DECLARED_GROUP].value == "A"


def test_screening_suggests_no_group_for_too_few_rows() -> None:
    few = replace(SHORT, n_rows=MIN_ROWS - 1, n_total=MIN_ROWS - 1)
    result = build_screening_result(KEY, declared("A"), few)
    assert result.passed and metadata_keys.SUGGESTED_GROUP not in result.metadata
    assert result.description is not None and "too few rows" in result.description
    assert f"{MIN_ROWS - 1} of at most 1,000" in str(render_screening_table(few).value).replace("&#", "")


def test_screening_table_lists_every_measure() -> None:
    text = str(render_screening_table(SHORT).value)
    for words in ("52,000 in the source", "90.0% of 412", "7 of all rows", "Latin 75%", "640 × 480 px", "12.5%"):
        assert words in text, text
    assert "images" not in str(render_screening_table(replace(SHORT, image_sizes=None)).value)


@pytest.mark.parametrize(("slug", "relation"), [("egoschema", "is itself"), ("tabmwp", None)])
def test_benchmark_check_names_the_benchmark(slug: str, relation: str | None) -> None:
    spec = load_catalog()[slug]
    result = build_benchmark_result(KEY, spec)
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert result.passed == (relation is None) == (not spec.benchmarks)
    if relation is not None:
        assert result.description is not None and relation in result.description
        assert spec.benchmarks[0].name in result.description
