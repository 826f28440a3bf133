"""The order of the data: a function of plan, seed and step, whatever the number of ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.lake.lake import Lake
from mvl_training.batches import Order, PackLoader, Prefetch
from mvl_training.conversation import ChatTokens
from mvl_training.pack_plan import PackPlan
from mvl_training.processing import SampleProcessor
from mvl_training.recipe import Recipe


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 5))
def test_an_epoch_takes_every_pack_once_and_ranks_share_each_step(packs: int, per_step: int, world: int) -> None:
    order = Order(packs, min(per_step, packs), seed=5)
    for epoch in (0, 1):
        taken = []
        for step in range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch):
            shares = [order.share(step, rank, world) for rank in range(world)]
            assert {len(s) for s in shares} == {order.micro_steps(world)}
            together = [p for s in shares for p in s if p is not None]
            assert sorted(together) == sorted(order.step(step))
            taken += together
        assert sorted(taken) == list(range(packs))


def test_later_epochs_are_shuffled_by_seed() -> None:
    order = Order(50, 5, seed=1)
    second = [p for s in range(10, 20) for p in order.step(s)]
    assert second != list(range(50))
    assert second == [p for s in range(10, 20) for p in Order(50, 5, seed=1).step(s)]
    assert second != [p for s in range(10, 20) for p in Order(50, 5, seed=2).step(s)]


def test_a_step_holds_about_the_samples_the_recipe_asks_for(lake: Lake) -> None:
    plan = PackPlan(lake, "single_image")
    samples = sum(len(p.row_ids) for p in plan)
    order = Order.of(plan, 6, seed=0)
    assert order.per_step == round(6 * len(plan) / samples)
    assert Order.of(plan, 10_000, seed=0).per_step == len(plan)


def test_an_error_while_loading_ahead_reaches_the_loop(lake: Lake, recipe: Recipe, tokens: ChatTokens) -> None:
    plan = PackPlan(lake, "single_image")
    loader = PackLoader(lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokens))
    prefetch = Prefetch(loader, iter([0, None, 10_000]))
    batches = iter(prefetch)
    assert next(batches).row_ids == plan[0].row_ids
    assert next(batches).row_ids == ()
    with pytest.raises(IndexError):
        next(batches)
    prefetch.close()


def test_closing_a_loader_in_the_middle_ends_its_thread(lake: Lake, recipe: Recipe, tokens: ChatTokens) -> None:
    plan = PackPlan(lake, "single_image")
    loader = PackLoader(lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokens))
    prefetch = Prefetch(loader, iter([0] * 1000))
    next(iter(prefetch))
    prefetch.close()
    assert not prefetch._thread.is_alive()
