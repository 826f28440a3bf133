"""The refusal of stages that do not fit on their GPUs, by the published model's numbers."""

from __future__ import annotations

import math

import pytest

from mvl_assets.errors import MvlError
from mvl_training.model.cost_model import GIB, ModelSizes, compute_recipe_sizes, estimate_memory
from mvl_training.recipe import Recipe, load_recipe, parse_recipe
from mvl_training.trainer.gpu_need import check_gpu_memory

STAGE = "single_image"


@pytest.fixture(scope="module")
def paper() -> Recipe:
    return load_recipe("paper-7b")


@pytest.fixture(scope="module")
def sizes(paper: Recipe) -> ModelSizes:
    return compute_recipe_sizes(paper)


def change_stage(recipe: Recipe, **settings: object) -> Recipe:
    data = recipe.to_dict()
    data["stages"][STAGE] |= settings
    return parse_recipe(data)


def read_refusal(recipe: Recipe, sizes: ModelSizes, gpu_gib: int, n_gpus: int) -> str:
    with pytest.raises(MvlError) as refusal:
        check_gpu_memory(recipe, STAGE, sizes, gpu_bytes=gpu_gib * GIB, n_gpus=n_gpus)
    return str(refusal.value)


@pytest.mark.parametrize(("n_gpus", "gpu_gib"), [(8, 80), (8, 40), (16, 24), (2, 80)])
def test_the_published_model_is_accepted_where_its_18_bytes_per_parameter_are_divided(
    paper: Recipe, sizes: ModelSizes, n_gpus: int, gpu_gib: int
) -> None:
    for stage in paper.stages:
        check_gpu_memory(paper, stage, sizes, gpu_bytes=gpu_gib * GIB, n_gpus=n_gpus)


def test_one_gpu_of_24_gib_is_refused_with_the_need_and_what_would_lower_it(paper: Recipe, sizes: ModelSizes) -> None:
    message = read_refusal(paper, sizes, gpu_gib=24, n_gpus=1)
    assert "single_image of recipe paper-7b takes about 141 GiB of each GPU of 1 under ZeRO-3" in message
    assert "(weights 15, gradients 29.9, optimizer 89.7, activations 6.0" in message
    assert "), and a GPU has 24 GiB" in message
    assert "8 GPUs (22.9 GiB), `max_pack_tokens: 8192` (138 GiB), `offload: true` (50.9 GiB)" in message
    assert "`zero_stage" not in message and "`gradient_checkpointing" not in message


def test_the_limit_is_the_forecast_and_gpus_that_would_not_help_are_not_suggested(
    paper: Recipe, sizes: ModelSizes
) -> None:
    needed = math.ceil(estimate_memory(sizes, paper.get_stage(STAGE), 3, 8).total_gib * GIB)
    check_gpu_memory(paper, STAGE, sizes, gpu_bytes=needed, n_gpus=8)
    with pytest.raises(MvlError, match=r"16 GPUs \("):
        check_gpu_memory(paper, STAGE, sizes, gpu_bytes=needed - 1, n_gpus=8)
    assert " GPUs (" not in read_refusal(paper, sizes, gpu_gib=4, n_gpus=8), "activations alone are too much"


def test_zero_3_and_recomputation_are_suggested_where_the_recipe_has_neither(paper: Recipe, sizes: ModelSizes) -> None:
    zero2 = change_stage(paper, zero_stage=2, gradient_checkpointing=False)
    message = read_refusal(zero2, sizes, gpu_gib=80, n_gpus=8)
    assert "`zero_stage: 3` (" in message and "`gradient_checkpointing: true` (" in message


def test_weights_in_4_bits_are_not_told_to_use_zero_3(paper: Recipe, sizes: ModelSizes) -> None:
    lora = {"rank": 64, "quantization": "nf4"}
    quantized = change_stage(paper, zero_stage=2, lora=lora)
    check_gpu_memory(quantized, STAGE, sizes, gpu_bytes=48 * GIB, n_gpus=8)
    message = read_refusal(quantized, sizes, gpu_gib=8, n_gpus=8)
    assert "`zero_stage" not in message and "`max_pack_tokens: 8192` (" in message
