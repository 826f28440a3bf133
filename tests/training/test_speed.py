"""Achieved FLOP/s: of the operations that the loop really does."""

from __future__ import annotations

import pytest

from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokens
from mvl_training.data.pack_plan import PackPlan
from mvl_training.model.cost_model import flops_of_sample, sizes_of
from mvl_training.model.student_model import assemble
from mvl_training.recipe import Recipe
from mvl_training.trainer.mfu import Speed


def test_the_head_is_counted_on_targets_only(lake: Lake, recipe: Recipe, tokens: ChatTokens) -> None:
    stage, sizes, plan = recipe.stage("single_image"), sizes_of(recipe), PackPlan(lake, "single_image")
    packs = list(range(4))
    samples, length, tiles, targets = (
        int(n[packs].sum()) for n in (plan.n_samples, plan.n_tokens, plan.n_tiles, plan.n_targets)
    )
    assert targets < length
    everywhere = samples * flops_of_sample(sizes, stage, length / samples, tiles / samples)
    head = assemble(recipe, tokens).llava.lm_head.weight.numel()
    found = Speed(sizes, stage, plan, world=2).of(packs, seconds=0.5)["tflops"] * 1e12
    assert found == pytest.approx((everywhere - 6 * head * (length - targets)) / 2 / 0.5)
