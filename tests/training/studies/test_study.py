"""Studies as values: every mistake is one clear error before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.profile import load_profile
from mvl_assets.errors import MvlError
from mvl_training.studies.arms import resolve_arms
from mvl_training.studies.study import STUDIES_DIR, Study, build_varied_study, list_studies, load_study, parse_study


def study(**changed: Any) -> Study:
    data: dict[str, Any] = {
        "name": "mix",
        "recipe": "demo",
        "arms": {"0": {"mixture.rewritten_share": 0.0}, "70": {"mixture.rewritten_share": 0.7}},
        "seeds": [0, 4],
        "budget": {"samples": {"single_image": 100}},
    }
    return parse_study(data | changed, "study mix")


def test_arms_are_profiles_and_recipes_with_the_seed_and_the_budget() -> None:
    arms = resolve_arms(study(stages=["single_image"]), load_profile("demo"))
    assert [arm.arm_id.path for arm in arms] == ["mix/0/0", "mix/70/0", "mix/0/4", "mix/70/4"]
    assert [arm.profile.mixture.rewritten_share for arm in arms] == [0.0, 0.7] * 2
    assert [(arm.profile.mixture.seed, arm.recipe.seed) for arm in arms] == [(0, 0), (0, 0), (4, 4), (4, 4)]
    assert {arm.profile.mixture.single_image for arm in arms} == {100}
    config = arms[0].recipe.get_stage("single_image")
    assert (arms[0].stages, config.steps) == (["single_image"], -(-100 // config.global_batch_size))
    assert {arm.keep_condition for arm in arms} == {"keep"}
    assert len({arm.digest for arm in arms}) == 4


def test_an_arm_may_change_the_recipe_and_keep_rewrites_by_another_rule() -> None:
    arms = {
        "base": {},
        "slow": {"recipe.stages.single_image.learning_rates.language": 1e-4},
        "all": {
            "keep.rule": "true",
            "mixture.shares.chart": 0.5,
            "mixture.sources.chartqa_cauldron_llava_format.max_rows": 9,
        },
    }
    base, slow, kept = resolve_arms(study(arms=arms, seeds=[0]), load_profile("demo"))
    assert slow.recipe.get_stage("single_image").learning_rates["language"] == 1e-4
    assert (
        slow.recipe.get_stage("single_image").learning_rates["vision"]
        == base.recipe.get_stage("single_image").learning_rates["vision"]
    )
    assert kept.keep_condition == "true"
    assert (kept.profile.mixture.shares["chart"], kept.profile.mixture.shares["ocr"]) == (0.5, 0.137)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arms": {"a": {"mixture.sharez.chart": 0.1}, "b": {}}}, "arm a: mixture.sharez: unknown key"),
        ({"arms": {"a": {"mixture.shares.charts": 0.1}, "b": {}}}, "shares of charts: not categories"),
        ({"arms": {"a": {"recipe.stages.single_image.bach": 1}, "b": {}}}, "stages.single_image.bach"),
        (
            {"arms": {"a": {"models.smollm2.name": "x"}, "b": {}}},
            "arm a: models.smollm2.name cannot differ between arms",
        ),
        ({"arms": {"a": {"mixtures.shares.chart": 0.1}, "b": {}}}, "did you mean `mixture`"),
        ({"arms": {"a": {"keep.rule": "p_yes > 1"}, "b": {}}}, "arm a: keep rule"),
        ({"arms": {"a": {"mixture": 3}, "b": {}}}, "expected a mapping"),
        ({"arms": {"a": {"mixture.seed": 3}, "b": {}}}, "mixture.seed is the study's"),
        ({"arms": {"a": {"mixture.single_image": 3}, "b": {}}}, "and the budget both say how many rows"),
        ({"arms": {"a": {"mixture.rewritten_share": 0.7}, "b": {}}}, "arms a and b have the same settings"),
        ({"arms": {"a": {}}}, "at least two arms"),
        ({"arms": {"a/b": {}, "c": {}}}, "'a/b': names have letters"),
        ({"baseline": "50"}, "baseline '50' is none of the arms"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": list(range(60))}, "100 in all at most"),
        ({"budget": {"samples": {"single_image": 0}}}, "above 0"),
        ({"budget": {"samples": {"single_image": 9}, "target_tokens": {"single_image": 9}}}, "not both"),
        ({"stages": ["alignment"]}, "budget names single_image, which is not among its stages"),
        ({"budgets": {}}, "budgets"),
    ],
)
def test_a_mistake_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(MvlError) as caught:
        resolve_arms(study(**changed), load_profile("demo"))
    assert message in f"{caught.value.message} {caught.value.hint}"
    assert "\n" not in caught.value.message


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\narms:\n  a: {}\n  b: {}\nseedz: [1]\n", encoding="utf-8")
    with pytest.raises(MvlError, match=r"mine\.yaml:5: seedz: unknown key"):
        load_study(path)
    path.write_text("name: other\narms:\n  a: {}\n  b: {}\n", encoding="utf-8")
    with pytest.raises(MvlError, match="is named other"):
        load_study(path)


@pytest.mark.parametrize("path", sorted(STUDIES_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_have_arms_that_differ(path: Path) -> None:
    shipped = load_study(path)
    arms = resolve_arms(shipped, load_profile("paper"))
    assert shipped.description and len({arm.digest for arm in arms}) == len(shipped.list_runs())
    assert shipped.name in list_studies()


def test_variations_make_an_arm_per_value_and_per_combination() -> None:
    varied = build_varied_study("share", ["mixture.shares.chart=0.05,0.1,0.2"])
    assert varied.arms == {v: {"mixture.shares.chart": float(v)} for v in ("0.05", "0.1", "0.2")}
    both = build_varied_study("two", ["mixture.upsample=true,false", "where=p_yes >= 0.5,p_yes >= 0.8"])
    assert list(both.arms) == [
        "upsample-True_where-p_yes----0.5",
        "upsample-True_where-p_yes----0.8",
        "upsample-False_where-p_yes----0.5",
        "upsample-False_where-p_yes----0.8",
    ]
    with pytest.raises(MvlError, match="no key and values"):
        build_varied_study("bad", ["mixture.shares.chart"])
