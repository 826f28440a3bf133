"""Plans beyond what the lake holds: rewrites to come, and sources that are not ingested."""

from __future__ import annotations

import pytest

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompt_parameters import PromptParameters
from mvl_assets.config.prompts import PROMPTS_DIR, load_prompts
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.plan import FROM_CATALOG, IN_LAKE, TO_COME
from mvl_assets.runner.forecasts import count_pairs, plan_probes, plan_source
from tests.rewriting.small_source import CHART, MATH, profile, put, source_of


def build_priced_profile(**fields: object) -> Profile:
    price = {"input_per_million": 1.0, "output_per_million": 2.0}
    model = profile().models["one"].model_dump() | {"price": price, **fields}
    return Profile.model_validate(profile().model_dump() | {"models": {"one": model}})


def test_judging_of_rewrites_to_come_is_planned_behind_them(lake: Lake) -> None:
    put(lake, CHART, range(8))
    rewriting, judging = plan_source(lake, CHART, build_priced_profile())
    assert (rewriting.counted, rewriting.to_send, rewriting.basis) == (IN_LAKE, 8, "limit")
    # Two pairs an answer, and a request per criterion.
    assert (judging.stage, judging.counted, judging.to_send) == ("judged", TO_COME, 8 * 2 * 3)
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


def test_images_count_by_the_rule_of_the_model_and_the_sizes_in_the_lake(lake: Lake) -> None:
    put(lake, CHART, range(4))
    plans = {
        name: plan_source(lake, CHART, build_priced_profile(name=name))[0] for name in ("Qwen2.5-VL-3B", "InternVL2")
    }
    assert {name: plan.image_rule for name, plan in plans.items()} == {
        "Qwen2.5-VL-3B": "qwen2_vl",
        "InternVL2": "internvl",
    }
    # The drawn images are 240 x 240 px: 9 x 9 patches of 28 px (252 px), or one tile.
    difference = plans["InternVL2"].prompt_tokens - plans["Qwen2.5-VL-3B"].prompt_tokens
    assert difference == pytest.approx(4 * 1.05 * (256 - 81), abs=2)


@pytest.mark.parametrize(
    ("fields", "n_votes", "may_follow_up"),
    [
        ({"logprobs": True}, 0, False),
        ({"logprobs": False}, 4, False),
        ({"thinking_tokens": 100}, 4, False),
        ({"output_form": "vllm"}, 0, False),
        ({}, 0, True),
    ],
)
def test_votes_are_planned_where_a_judge_gives_no_log_probabilities(
    lake: Lake, fields: dict[str, object], n_votes: int, may_follow_up: bool
) -> None:
    put(lake, CHART, range(8))
    judging = plan_source(lake, CHART, build_priced_profile(**fields))[1]
    assert (judging.to_send, judging.follow_ups, judging.may_follow_up) == (48, 48 * n_votes, may_follow_up)
    known = plan_source(lake, CHART, build_priced_profile(**fields | {"logprobs": True}))[1]
    if not fields.get("thinking_tokens"):
        assert judging.prompt_tokens == pytest.approx(known.prompt_tokens * (1 + n_votes), rel=0.01)
        assert known.cost_high is not None and judging.cost_high is not None
        assert (judging.cost_high > 4 * known.cost_high) == bool(n_votes or may_follow_up)


def test_every_judge_of_a_panel_has_a_plan_and_probes(lake: Lake) -> None:
    put(lake, CHART, range(2))
    single = build_priced_profile()
    other = single.models["one"].model_copy(update={"name": "other"})
    panel = single.model_dump() | {
        "models": {**single.model_dump()["models"], "two": other.model_dump()},
        "judging": {"panel": ["two"]},
    }
    profile_of_two = Profile.model_validate(panel)
    judging = [plan for plan in plan_source(lake, CHART, profile_of_two) if plan.stage == "judged"]
    assert [(plan.model, plan.to_send) for plan in judging] == [("fake", 12), ("other", 12)]
    probes = plan_probes(lake, profile_of_two)
    assert [plan.model for plan in probes] == ["fake", "other"]
    assert all(plan.to_send > 1000 and plan.prompt_tokens > 1000 * 256 for plan in probes)


def test_pairs_of_an_answer_are_the_middle_of_what_the_schema_allows() -> None:
    prompts = load_prompts(PROMPTS_DIR)
    counts = {family: count_pairs(prompts[f"rewrite_{family}"]) for family in ("math", "ocr", "chart")}
    assert counts == {"math": 1.0, "ocr": 1.0, "chart": 2.5}
