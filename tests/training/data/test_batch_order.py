"""The order of the data: a function of plan, seed and step, whatever the number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import PackPlan


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 5))
def test_an_epoch_takes_every_pack_once_and_ranks_share_each_step(packs: int, per_step: int, world: int) -> None:
    order = BatchOrder(packs, min(per_step, packs), seed=5)
    for epoch in (0, 1):
        taken = []
        for step in range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch):
            shares = [order.list_rank_packs(step, rank, world) for rank in range(world)]
            assert {len(s) for s in shares} == {order.count_grad_accum_steps(world)}
            together = [p for s in shares for p in s if p is not None]
            assert sorted(together) == sorted(order.list_step_packs(step))
            taken += together
        assert sorted(taken) == list(range(packs))


def test_later_epochs_are_shuffled_by_seed() -> None:
    order = BatchOrder(50, 5, seed=1)
    second = [p for s in range(10, 20) for p in order.list_step_packs(s)]
    assert second != list(range(50))
    assert second == [p for s in range(10, 20) for p in BatchOrder(50, 5, seed=1).list_step_packs(s)]
    assert second != [p for s in range(10, 20) for p in BatchOrder(50, 5, seed=2).list_step_packs(s)]


def test_a_step_holds_about_the_samples_the_recipe_asks_for(lake: Lake) -> None:
    plan = PackPlan(lake, "single_image")
    samples = sum(len(p.row_ids) for p in plan)
    order = BatchOrder.from_plan(plan, 6, seed=0)
    assert order.packs_per_step == round(6 * len(plan) / samples)
    assert BatchOrder.from_plan(plan, 10_000, seed=0).packs_per_step == len(plan)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 5))
def test_straggler_efficiency_equals_the_sum_over_each_ranks_packs(work: list[int], per_step: int, world: int) -> None:
    order = BatchOrder(len(work), min(per_step, len(work)), seed=0)
    result = []
    for step in range(order.steps_per_epoch):
        ranks = [
            sum(work[p] for p in order.list_rank_packs(step, rank, world) if p is not None) for rank in range(world)
        ]
        result.append(sum(ranks) / world / max(ranks) if any(ranks) else 1.0)
    assert order.compute_straggler_efficiency(np.array(work), world) == pytest.approx(sum(result) / len(result))


def test_ranks_without_a_pack_lower_the_straggler_efficiency() -> None:
    assert BatchOrder(12, 6, seed=0).compute_straggler_efficiency(np.full(12, 100), 3) == 1.0
    assert BatchOrder(12, 6, seed=0).compute_straggler_efficiency(np.full(12, 100), 4) == pytest.approx(6 / 8)
