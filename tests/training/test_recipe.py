"""Recipes: the paper's values, and mistakes that are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_training.recipe import RECIPES_DIR, RecipeError, load_recipe, parse_recipe
from tests.training import tiny_model as small


def test_paper_7b_has_the_papers_values() -> None:
    """arXiv 2412.05237 Table 1 and the released scripts."""
    recipe = load_recipe("paper-7b")
    assert recipe.language.model == "Qwen/Qwen2.5-7B-Instruct"
    assert recipe.vision.model == "google/siglip-so400m-patch14-384"
    assert recipe.paper_parity
    options = (recipe.loss_weighting, recipe.video_newlines, recipe.image_first, recipe.folder_frames)
    assert options == ("sample", "grid", True, 10)
    alignment, single, one = (recipe.get_stage(s) for s in TRAINING_STAGES)
    assert alignment.learning_rates == {"projector": 1e-3}
    assert single.learning_rates == one.learning_rates == {"language": 1e-5, "projector": 1e-5, "vision": 2e-6}
    assert [s.global_batch_size for s in (alignment, single, one)] == [512, 256, 256]
    assert [s.max_seq_len for s in (alignment, single, one)] == [8192, 8192, 16384]
    assert [s.chat_format for s in (alignment, single, one)] == ["plain", "chatml", "chatml"]
    assert [s.image_mode for s in (alignment, single, one)] == ["flat", "anyres", "anyres"]
    for stage in (alignment, single, one):
        assert (stage.schedule, stage.warmup, stage.weight_decay, stage.epochs) == ("cosine", 0.03, 0.0, 1)
        assert (stage.zero_stage, stage.precision, stage.gradient_checkpointing) == (3, "bf16", True)
        assert (stage.save_interval, stage.keep_checkpoints) == (1000, 20)
    assert [s.pack_tokens for s in (alignment, single, one)] == [16384, 16384, 16384]
    assert one.max_frames == 32
    grid = recipe.grid.to_tile_grid()
    assert (grid.patches_per_side, grid.max_tiles, len(grid.shapes)) == (27, 4, 36)
    assert grid.grid_pinpoints[0] == [384, 384]
    assert grid.grid_pinpoints[-1] == [2304, 2304]


def test_a_recipe_chooses_each_option_of_the_released_code_for_itself(tokenizer: Path) -> None:
    data = small.build_recipe_data(tokenizer)
    plain, parity = parse_recipe(data), parse_recipe(data | {"paper_parity": True})
    mixed = parse_recipe(data | {"paper_parity": True, "loss_weighting": "sqrt", "video_newlines": "one"})
    assert (plain.loss_weighting, plain.video_newlines, plain.image_first, plain.folder_frames) == (
        "token",
        "one",
        False,
        None,
    )
    assert (parity.loss_weighting, mixed.loss_weighting, mixed.video_newlines) == ("sample", "sqrt", "one")
    assert mixed.image_first
    assert parse_recipe(mixed.to_dict()) == mixed


@pytest.mark.parametrize("name", ["paper-7b", "ablation-1.5b", "demo"])
def test_every_recipe_loads_and_has_the_three_stages(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert tuple(recipe.stages) == TRAINING_STAGES


def test_the_demo_has_at_most_the_tiles_that_vllm_counts_alike() -> None:
    assert max(r * c for r, c in load_recipe("demo").grid.to_tile_grid().shapes) <= 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "colour: Extra inputs"),
        ({"stages": {}}, "stages: Dictionary should have at least 1 item"),
        ({"language": {"tokenizer": "x"}}, "give either `model`"),
        ({"language": {"model": "a", "config": {"model_type": "qwen2"}}}, "give either `model`"),
        ({"language": {"config": {"model_type": "qwen2"}}}, "needs a `tokenizer`"),
        ({"language": {"config": {}, "tokenizer": "x"}}, "needs `model_type`"),
        ({"vision": {"model": "x", "tokenizer": "y"}}, "has no `tokenizer`"),
        ({"grid": {"tile": 56, "patch": 14, "side": 2, "anyres_max": 4}}, "the vision tower takes"),
    ],
)
def test_a_mistake_is_named_in_one_line(tokenizer: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(small.build_recipe_data(tokenizer) | change, "mine.yaml")
    assert message in caught.value.message
    assert caught.value.message.startswith("mine.yaml: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"learning_rates": {}}, "stages.single_image.learning_rates"),
        ({"learning_rates": {"vision": 0.0}}, "must be above 0"),
        ({"learning_rates": {"everything": 1e-3}}, "stages.single_image.learning_rates"),
        ({"zero_stage": 4}, "stages.single_image.zero_stage"),
        ({"precision": "fp8"}, "stages.single_image.precision"),
        ({"zero_stage": 0, "precision": "bf16"}, "bf16 needs `zero_stage` 2 or 3, not 0"),
        ({"zero_stage": 1, "precision": "bf16"}, "bf16 needs `zero_stage` 2 or 3, not 1"),
        ({"max_seq_len": 20}, "one image alone takes"),
        ({"warmup": 1.0}, "stages.single_image.warmup"),
    ],
)
def test_impossible_stages_are_refused(tokenizer: Path, stage: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        small.build_recipe(tokenizer, **stage)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "bad.yaml:2: did not find expected node content"),
        ("- 1", "bad.yaml:1: expected a mapping at the top"),
        ("name: a\nname: b", "bad.yaml:2: the key 'name' is given twice (first in line 1)"),
        ("name: a\n---\nname: b", "bad.yaml: a recipe is one YAML document, this file holds 2"),
        ("", "bad.yaml: a recipe is one YAML document, this file holds 0"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert caught.value.message == f"{tmp_path}/{message}"


def test_every_mistake_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    lines = (RECIPES_DIR / "demo.yaml").read_text(encoding="utf-8").splitlines()
    n_seed = next(n for n, line in enumerate(lines) if line.startswith("seed:"))
    n_schedule = next(n for n, line in enumerate(lines) if line.strip().startswith("warmup:"))
    lines[n_seed] = "seed: many"
    lines[n_schedule] = "    warm_up: 0.03"
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    first, second = caught.value.message.split("; ")
    assert first.startswith(f"{file}:{n_seed + 1}: seed: Input should be a valid integer")
    assert second == f"{file}:{n_schedule + 1}: stages.alignment.warm_up: Extra inputs are not permitted"


def test_an_unknown_recipe_and_an_unknown_stage_name_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"known: ablation-1\.5b, demo, paper-7b"):
        load_recipe("nonsense")
    with pytest.raises(RecipeError, match=r"has no stage 'two' .* it has alignment, single_image, one_vision"):
        load_recipe("demo").get_stage("two")


@pytest.mark.parametrize(
    ("name", "is_demo"), [("demo", True), ("demo-2", True), ("demonstrate", False), ("paper-7b", False)]
)
def test_a_demo_is_known_by_its_name(tokenizer: Path, name: str, is_demo: bool) -> None:
    assert parse_recipe(small.build_recipe_data(tokenizer) | {"name": name}).is_demo is is_demo


def test_a_learning_rate_changes_the_training_but_not_the_plan(tokenizer: Path) -> None:
    one, other = small.build_recipe(tokenizer), small.build_recipe(tokenizer, learning_rates={"projector": 1e-4})
    assert one.build_plan_inputs("single_image") == other.build_plan_inputs("single_image")
    assert one.build_training_inputs("single_image") != other.build_training_inputs("single_image")
    kept = small.build_recipe(tokenizer, save_interval=50, keep_checkpoints=9)
    assert one.build_training_inputs("single_image") == kept.build_training_inputs("single_image")
