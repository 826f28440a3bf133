"""Achieved FLOP/s: of the operations that the loop really does."""

from __future__ import annotations

import pytest

from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_plan import PackPlan
from mvl_training.model.cost_model import compute_recipe_sizes, compute_sample_flops
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import Recipe
from mvl_training.trainer.mfu import ThroughputMeter


def test_achieved_flops_count_the_head_on_loss_tokens_only(lake: Lake, recipe: Recipe, tokens: ChatTokenizer) -> None:
    stage, sizes, plan = recipe.get_stage("single_image"), compute_recipe_sizes(recipe), PackPlan(lake, "single_image")
    counts = plan.read_counts(range(9))
    length, targets = int(counts.n_tokens.sum()), int(counts.n_loss_tokens.sum())
    assert targets < length
    everywhere = sum(
        compute_sample_flops(sizes, stage, float(n_tokens), float(n_tiles))
        for n_tokens, n_tiles in zip(counts.n_tokens, counts.n_tiles, strict=True)
    )
    head = start_student(recipe, tokens).llava.lm_head.weight.numel()
    meter = ThroughputMeter(sizes, stage, world_size=2)
    result = meter.measure(counts, step_time_s=0.5)["tflops"] * 1e12
    assert result == pytest.approx((everywhere - 6 * head * (length - targets)) / 2 / 0.5)
