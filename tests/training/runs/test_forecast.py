"""Forecasts: the published model's known numbers, and the demo's real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.cli import recipe_group
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import load_tokenizer
from mvl_training.model.cost_model import compute_recipe_sizes, compute_sample_flops, count_trained_params
from mvl_training.model.students.choose import start_student
from mvl_training.model.students.llava_onevision import find_model_component
from mvl_training.recipe import ExpectedData, LoraConfig, load_recipe, parse_recipe
from mvl_training.runs.forecast import forecast_stage
from tests.training import tiny_model as small


def test_the_published_model_has_its_known_size_and_cost() -> None:
    """Table 1 of arXiv 2412.05237: 8.0B parameters, 20.0M in the projector's stage (17M of them in the projector)."""
    recipe = load_recipe("paper-7b")
    sizes = compute_recipe_sizes(recipe)
    assert sum(sizes.params.values()) == pytest.approx(8.030e9, rel=1e-3)
    single = forecast_stage(recipe, "single_image", sizes, n_gpus=8)
    assert single.n_steps == 39_063
    language = 6 * (28 * 233.05e6 + 544.997e6) + 6 * 28 * 3584 * 2400
    tile = 3 * (2 * 729 * (26 * 15.23e6 + 0.68e6) + 26 * 4 * 729**2 * 1152 + 2 * 729 * 16.97e6)
    assert single.flops_per_token == pytest.approx(language + 5 * tile / 2400, rel=5e-3)
    weights = 8.03e9 / (1 << 30)
    whole = single.memory[0]
    assert (whole.weights_gib, whole.optimizer_gib) == pytest.approx((2 * weights, 12 * weights), rel=1e-3)
    shared = single.memory[3]
    assert (shared.weights_gib, shared.gradients_gib) == pytest.approx((2 * weights / 8, 4 * weights / 8), rel=1e-3)


def test_a_frozen_tower_adds_no_gradient_memory() -> None:
    recipe = load_recipe("paper-7b")
    sizes = compute_recipe_sizes(recipe)
    same = ExpectedData(samples=1000, tokens=1000, tiles=1)
    stages = {name: stage.model_copy(update={"expected": same}) for name, stage in recipe.stages.items()}
    recipe = recipe.model_copy(update={"stages": stages})
    one, all_parts = (forecast_stage(recipe, stage, sizes, n_gpus=8) for stage in ("alignment", "single_image"))
    assert 0.6 < one.flops_per_token / all_parts.flops_per_token < 2 / 3
    assert one.memory[0].gradients_gib < 0.1 < all_parts.memory[0].gradients_gib
    assert one.basis == "assumed by the recipe"


@pytest.mark.parametrize(("batch", "steps"), [(1, None), (4, None), (16, 7)])
def test_a_forecast_over_a_plan_has_the_steps_and_samples_that_will_be_trained(
    lake: Lake, tokenizer: Path, batch: int, steps: int | None
) -> None:
    recipe = parse_recipe(small.build_recipe_data(tokenizer, global_batch_size=batch, steps=steps))
    plan = PackPlan(lake, "single_image")
    order = BatchOrder(len(plan), batch, recipe.seed)
    result = forecast_stage(recipe, "single_image", compute_recipe_sizes(recipe), n_gpus=1, plan=plan)
    assert result.basis == "the pack plan" and result.n_steps == (steps or order.steps_per_epoch)
    assert result.n_samples == sum(len(order.list_step_samples(n)) for n in range(result.n_steps))


def test_an_offloaded_optimizer_is_on_the_host() -> None:
    recipe = load_recipe("paper-7b")
    here = recipe.get_stage("single_image")
    away = here.model_copy(update={"offload": True})
    sizes = compute_recipe_sizes(recipe)
    kept, moved = (
        forecast_stage(
            recipe.model_copy(update={"stages": {**recipe.stages, "single_image": stage}}),
            "single_image",
            sizes,
            n_gpus=8,
        ).memory[3]
        for stage in (here.model_copy(update={"offload": False}), away)
    )
    assert (kept.host_gib, moved.optimizer_gib) == (0.0, 0.0) and moved.host_gib == kept.optimizer_gib


def test_adapters_of_the_published_model_are_counted_and_named(tmp_path: Path) -> None:
    recipe = load_recipe("paper-7b")
    stage = recipe.get_stage("single_image")
    adapted = stage.model_copy(
        update={
            "lora": LoraConfig(),
            "zero_stage": 2,
            "recompute": "attention_kept",
            "compile_layers": True,
            "keep_every_samples": 10**6,
        }
    )
    data = recipe.to_dict()
    data["stages"] = {"single_image": adapted.model_dump(mode="json")}
    sizes = compute_recipe_sizes(recipe)
    # What peft counts for Qwen2-7B with rank 16 on all linear layers.
    assert count_trained_params(sizes, adapted)["language"] == 40_370_176
    whole, small_one = (compute_sample_flops(sizes, config, 2400.0, 5.0) for config in (stage, adapted))
    assert 0.6 < small_one / whole < 0.9
    (tmp_path / "adapted.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    text = CliRunner().invoke(recipe_group, ["show", str(tmp_path / "adapted.yaml"), "--gpus", "8"]).output
    assert "rank 16, alpha 32: 40.4M parameters on q_proj, k_proj" in text
    assert "activations of each layer, but for the outputs of attention" in text
    assert "torch.compile" in text and "one kept every 1,000,000 samples" in text


def test_parameters_of_the_demo_are_counted_as_they_are_built() -> None:
    recipe = load_recipe("demo")
    student = start_student(recipe, load_tokenizer(recipe))
    built = {"language": 0, "projector": 0, "vision": 0}
    for name, parameter in student.named_parameters():
        built[find_model_component(name) or "vision"] += parameter.numel()
    assert compute_recipe_sizes(recipe).params == built


def test_a_forecast_without_plan_or_expectation_names_what_to_do() -> None:
    recipe = load_recipe("demo")
    with pytest.raises(MvlError, match="has neither a pack plan nor") as caught:
        forecast_stage(recipe, "alignment", compute_recipe_sizes(recipe), n_gpus=1)
    assert "pack_plan/alignment" in (caught.value.hint or "")


def test_the_command_prints_every_stage_and_the_same_as_json() -> None:
    text = CliRunner().invoke(recipe_group, ["show", "paper-7b", "--stage", "single_image", "--gpus", "128"])
    assert text.exit_code == 0
    assert "39,063 of 256 samples" in text.output and "of the time of 128 GPUs is work" in text.output
    assert "<- the recipe's" in text.output
    result = json.loads(CliRunner().invoke(recipe_group, ["show", "ablation-1.5b", "--json"]).output)
    assert [one["stage"] for one in result] == ["alignment", "single_image", "one_vision"]
    efficiency = result[1]["lockstep"]["efficiency"]
    assert 0.95 < efficiency < 1
    assert result[1]["gpu_days"] == pytest.approx(result[1]["flops"] / (0.4 * efficiency * 989e12) / 86400)
