"""Forecasts: by the same model's answers, else by what is expected, and never by another model's."""

from __future__ import annotations

import datetime as dt

import pytest

from mvl_assets.common.tables import format_narrow_table, format_short_number
from mvl_assets.inference.request import ModelRef
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Answer
from mvl_assets.model_stage.forecast import EXPECTED, HALF_LIMIT, MEASURED, ExpectedTokens, forecast_answer

MODEL = ModelRef("big", "1")


def store(lake: Lake, source: str, model: ModelRef, lengths: list[int], prompt: str = "p") -> None:
    answers = [
        Answer(
            request_key=f"{hash((source, model, number)) & (1 << 120) - 1:032x}",
            source=source,
            stage="rewritten",
            model=model.name,
            model_revision=model.revision,
            prompt=prompt,
            prompt_hash="h",
            text="",
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=length,
            first_token_logprobs=None,
            latency_s=0.1,
            attempts=1,
            run_id="r",
            created_at=dt.datetime.now(dt.UTC),
        )
        for number, length in enumerate(lengths)
    ]
    with lake.get_answer_log("rewritten", source) as log:
        log.append(answers)


def test_only_answers_of_the_same_model_count(lake: Lake) -> None:
    store(lake, "here", ModelRef("toy", "1"), [10] * 50)
    store(lake, "here", ModelRef("big", "0"), [20] * 50)
    nothing = forecast_answer(lake, "rewritten", "here", MODEL, "p", 1000, ExpectedTokens({}))
    assert (nothing.mean, nothing.low, nothing.high, nothing.basis) == (500, 250, 1000, HALF_LIMIT)
    store(lake, "here", MODEL, [300, 500] * 25)
    measured = forecast_answer(lake, "rewritten", "here", MODEL, "p", 1000, ExpectedTokens({"p": 30}, 900))
    assert (measured.mean, measured.basis) == (400, MEASURED)
    assert 350 < measured.low < 400 < measured.high < 450


def test_answers_about_other_sources_count_before_an_expectation(lake: Lake) -> None:
    store(lake, "there", MODEL, [100] * 30)
    assert forecast_answer(lake, "rewritten", "here", MODEL, "p", 1000, ExpectedTokens({"p": 7})).mean == 100
    assert forecast_answer(lake, "rewritten", "here", MODEL, "other", 1000, ExpectedTokens({})).basis == HALF_LIMIT


def test_an_expectation_is_the_prompts_and_thoughts_come_on_top(lake: Lake) -> None:
    forecast = forecast_answer(lake, "rewritten", "here", MODEL, "p", 500, ExpectedTokens({"p": 300}, 1000))
    assert (forecast.mean, forecast.low, forecast.high, forecast.basis) == (1300, 650, 2500, EXPECTED)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0, "0"), (7, "7"), (999, "999"), (0.042, "0.04"), (5.9, "5.90"), (44.12, "44.1"), (12345, "12.3k"),
     (999_499, "999k"), (29.0e9, "29.0G"), (1.234e6, "1.23M")],
)  # fmt: skip
def test_numbers_take_five_characters_at_most(value: float | None, text: str) -> None:
    assert format_short_number(value) == text


def test_a_narrow_table_folds_nothing() -> None:
    assert format_narrow_table(["source", "n"], [["a" * 50, "1"], ["b", "10"]]).splitlines() == [
        f"{'source':50} {'n':>2}",
        f"{'a' * 50}  1",
        f"{'b':50} 10",
    ]
