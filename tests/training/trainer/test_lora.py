"""Adapters of the language tower: what learns, what an export holds, and that a run goes on bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.model.cost_model import GIB, compute_recipe_sizes, estimate_memory
from mvl_training.model.lora import add_adapters, is_adapter, merge_adapters
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import LoraConfig, RecipeError, load_recipe, parse_recipe
from mvl_training.trainer.engine import build_parameter_groups
from mvl_training.trainer.export_main import export_stage
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "down_proj"]}


def train(recipe: Path, lake: Lake, out: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "mvl_training.trainer.main", "--recipe", str(recipe), "--stage", "single_image"]
    command += ["--lake", lake.root, "--out", str(out)]
    done = subprocess.run(
        command, env=small.build_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(("quantization", "precision", "zero_stage"), [(None, "fp32", 3), ("nf4", "bf16", 2)])
def test_a_run_goes_on_bit_for_bit_and_exports_the_sum(
    quantization: str | None, precision: str, zero_stage: int, tmp_path: Path, tokenizer: Path, lake: Lake
) -> None:
    recipe = tmp_path / "tiny.yaml"
    lora = LORA | {"quantization": quantization}
    data = small.build_recipe_data(tokenizer, steps=4, lora=lora, precision=precision, zero_stage=zero_stage)
    recipe.write_text(yaml.safe_dump(data), encoding="utf-8")
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    steps = train(recipe, lake, whole)
    shutil.copytree(whole, interrupted)
    shutil.rmtree(interrupted / "checkpoints/step-00000004")
    (interrupted / "result.json").unlink()
    again = train(recipe, lake, interrupted)
    numbers = [[(line["loss"], line["grad_norm"]) for line in lines] for lines in (steps, again)]
    assert numbers[0] == numbers[1]
    for folder in (whole, interrupted):
        assert export_stage(folder).is_within_tolerance
    exports = [load_file(folder / "export" / "model.safetensors") for folder in (whole, interrupted)]
    assert all(torch.equal(exports[0][name], exports[1][name]) for name in exports[0])
    result = json.loads((whole / "result.json").read_text("utf-8"))
    assert (
        result["merged_adapters"] == json.loads((whole / "export" / "mvl.json").read_text("utf-8"))["merged_adapters"]
    )
    assert result["merged_adapters"]["rank"] == 4
    before = start_student(parse_recipe(small.build_recipe_data(tokenizer)), ChatTokenizer.load(tokenizer))
    layer = before.llava.model.language_model.layers[0]
    name = "language_model.model.layers.0."
    assert not torch.equal(exports[0][name + "mlp.down_proj.weight"], layer.mlp.down_proj.weight)
    frozen = exports[0][name + "mlp.up_proj.weight"]
    if quantization is None:
        assert torch.equal(frozen, layer.mlp.up_proj.weight)
    else:
        # 16 values for each block of 64 weights, relative to the largest of the block.
        assert len(frozen.reshape(-1, 64)[0].unique()) <= 16
        difference = (frozen.float() - layer.mlp.up_proj.weight).abs().max()
        assert 0 < difference < 0.2 * frozen.abs().max()


def test_only_adapters_and_the_other_components_learn(tokenizer: Path, tokens: ChatTokenizer) -> None:
    recipe = parse_recipe(small.build_recipe_data(tokenizer, lora=LORA))
    student = start_student(recipe, tokens)
    before = {name: parameter.clone() for name, parameter in student.named_parameters()}
    add_adapters(student, LoraConfig.model_validate(LORA), seed=3)
    build_parameter_groups(student, recipe.get_stage("single_image"))
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trained if "language_model" in name}
    assert adapters and all(is_adapter(name) for name in adapters)
    assert any("multi_modal_projector" in name for name in trained) and any("vision_tower" in n for n in trained)
    merged = merge_adapters(dict(student.named_parameters()), LoraConfig.model_validate(LORA))
    assert merged.keys() == before.keys(), "the names of a student without adapters"
    assert all(torch.equal(merged[name], before[name]) for name in before), "a new adapter adds nothing"


def test_weights_in_4_bits_stand_for_and_compute_in_the_type_of_the_stage(
    tokenizer: Path, tokens: ChatTokenizer
) -> None:
    lora = LoraConfig.model_validate(LORA | {"quantization": "nf4"})
    student = start_student(parse_recipe(small.build_recipe_data(tokenizer)), tokens)
    add_adapters(student, lora, seed=3, compute_dtype=torch.bfloat16)
    for layer in (
        student.vlm.model.language_model.layers[0].mlp.up_proj,
        student.vlm.model.language_model.layers[0].mlp.down_proj.base_layer,
    ):
        assert (layer.compute_dtype, layer.weight.quant_state.dtype) == (torch.bfloat16, torch.bfloat16)


def test_mistakes_are_named(tokenizer: Path, tokens: ChatTokenizer) -> None:
    with pytest.raises(RecipeError, match="`lora` needs a learning rate of `language`"):
        parse_recipe(small.build_recipe_data(tokenizer, lora=LORA, learning_rates={"projector": 1e-3}))
    with pytest.raises(RecipeError, match=r"`lora\.quantization` needs `zero_stage` 0, 1 or 2"):
        parse_recipe(small.build_recipe_data(tokenizer, lora=LORA | {"quantization": "nf4"}, zero_stage=3))
    student = start_student(parse_recipe(small.build_recipe_data(tokenizer)), tokens)
    with pytest.raises(MvlError, match=r"names fc1, which the language tower has not .*down_proj, gate_proj, k_proj"):
        add_adapters(student, LoraConfig(targets=("fc1",)), seed=1)


def test_a_recipe_without_adapters_keeps_its_identity(tokenizer: Path) -> None:
    recipe = parse_recipe(small.build_recipe_data(tokenizer))
    assert "lora" not in recipe.build_training_inputs("single_image")["settings"]
    other = parse_recipe(small.build_recipe_data(tokenizer, lora=LORA))
    settings = other.build_training_inputs("single_image")["settings"]["lora"]
    assert settings["rank"] == 4 and "quantization" not in settings
    quantized = parse_recipe(small.build_recipe_data(tokenizer, lora=LORA | {"quantization": "nf4"}))
    assert quantized.build_training_inputs("single_image")["settings"]["lora"]["quantization"] == "nf4"


def test_weights_in_4_bits_take_about_half_a_byte() -> None:
    recipe = load_recipe("paper-7b")
    sizes, stage_config = compute_recipe_sizes(recipe), recipe.get_stage("single_image")
    adapted, quantized = (
        stage_config.model_copy(update={"lora": LoraConfig(quantization=quantization)})
        for quantization in (None, "nf4")
    )
    whole_gib = estimate_memory(sizes, adapted, 2, 1).weights_gib
    assert whole_gib == pytest.approx(2 * sum(sizes.params.values()) / GIB)
    # 6.5 billion weights of the language tower's linear layers.
    saved_gib = whole_gib - estimate_memory(sizes, quantized, 2, 1).weights_gib
    assert saved_gib == pytest.approx(6.53e9 * (2 - 33 / 64) / GIB, rel=0.01)
