"""Plans beyond what the lake holds: rewrites to come, and sources that are not ingested."""

from __future__ import annotations

import pytest

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompt_parameters import PromptParameters
from mvl_assets.config.prompts import load_prompts
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.plan import FROM_CATALOG, IN_LAKE, TO_COME
from mvl_assets.runner.forecasts import count_pairs, plan_source
from tests.rewriting.small_source import CHART, MATH, profile, put, source_of


def build_priced_profile(**fields: object) -> Profile:
    price = {"input_per_million": 1.0, "output_per_million": 2.0}
    model = profile().models["one"].model_dump() | {"price": price, **fields}
    return Profile.model_validate(profile().model_dump() | {"models": {"one": model}})


def test_judging_of_rewrites_to_come_is_planned_behind_them(lake: Lake) -> None:
    put(lake, CHART, range(8))
    rewriting, judging = plan_source(lake, CHART, build_priced_profile())
    assert (rewriting.counted, rewriting.to_send, rewriting.basis) == (IN_LAKE, 8, "limit")
    # Two or three pairs an answer, and a request per criterion.
    assert (judging.stage, judging.counted, judging.to_send) == ("judged", TO_COME, 8 * 2.5 * 3)
    for plan in (rewriting, judging):
        assert plan.cost is not None and plan.cost_low is not None and plan.cost_high is not None
        assert 0 < plan.cost_low < plan.cost < plan.cost_high


def test_without_answers_a_plan_rests_on_what_the_prompt_expects(lake: Lake) -> None:
    put(lake, CHART, range(8))
    large = build_priced_profile().model_copy(update={"prompts": None})
    prompt = load_prompts(profile=large)["rewrite_chart"]
    assert prompt.expected_tokens is not None
    plan = plan_source(lake, CHART, large)[0]
    assert (plan.basis, plan.reasks) == ("prompt", 0)
    assert plan.completion_tokens == pytest.approx(8 * prompt.expected_tokens * 1.05, rel=0.01)
    more = PromptParameters.model_validate({"pairs": {"min": 5, "max": 5}})
    plan_of_more = plan_source(lake, CHART, large.model_copy(update={"prompt_parameters": {"chart": more}}))[0]
    assert plan_of_more.completion_tokens == pytest.approx(2 * plan.completion_tokens, rel=0.01)


def test_scoring_of_rewrites_to_come_is_planned_up_to_the_rows_of_the_profile(lake: Lake) -> None:
    put(lake, CHART, range(8))
    for score_rows, n_scored in ((3, 6), (1000, 16)):
        *_, scoring = plan_source(lake, CHART, build_priced_profile().model_copy(update={"score_rows": score_rows}))
        assert (scoring.stage, scoring.counted, scoring.to_send, scoring.basis) == (
            "scored",
            TO_COME,
            n_scored,
            "prompt",
        )


def test_a_source_that_is_not_ingested_is_counted_by_the_catalog(lake: Lake) -> None:
    source = source_of("math", "code_math").model_copy(update={"expected": None})
    assert plan_source(lake, source, profile()) == []
    sized = source_of("math", "code_math").model_validate(
        source.model_dump() | {"expected": {"count": 1000, "unit": "rows"}}
    )
    plans = plan_source(lake, sized, profile())
    assert [(plan.counted, plan.to_send) for plan in plans] == [(FROM_CATALOG, 1000), (TO_COME, 3000)]
    assert plan_source(lake, sized, profile(), limit=10)[0].to_send == 10


def test_thoughts_are_part_of_a_plan(lake: Lake) -> None:
    put(lake, MATH, range(4))
    plain = plan_source(lake, MATH, build_priced_profile())[0]
    thinking = plan_source(lake, MATH, build_priced_profile(thinking_tokens=4000))[0]
    assert thinking.completion_tokens - plain.completion_tokens == pytest.approx(4 * 2000 * 1.05, rel=0.01)


def test_pairs_of_an_answer_are_the_middle_of_what_the_schema_allows() -> None:
    prompts = load_prompts()
    counts = {family: count_pairs(prompts[f"rewrite_{family}"]) for family in ("math", "ocr", "chart")}
    assert counts == {"math": 1.0, "ocr": 1.0, "chart": 2.5}
