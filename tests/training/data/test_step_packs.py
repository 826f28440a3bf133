"""The packs of a step: every sample once, no pack too large, and ranks that hardly wait for each other."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.common.training_stages import TrainingStage
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import SampleCounts
from mvl_training.data.step_packs import PackLimits, StepPacker, StepPacks, pack_samples
from mvl_training.model.cost_model import build_sample_flops, compute_recipe_sizes
from mvl_training.recipe import load_recipe
from mvl_training.runs.sample_shapes import draw_stage_counts

Sample = tuple[int, int, int]
"""Tokens, tiles, and work in units."""

SAMPLES = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 12), st.integers(1, 500)), min_size=1, max_size=60)


def build_counts(samples: list[Sample]) -> SampleCounts:
    tokens, tiles, _ = np.array(samples, dtype=np.int32).T
    return SampleCounts(tokens, np.ones_like(tokens), tiles)


def pack(samples: list[Sample], world_size: int, limits: PackLimits | None = None) -> StepPacks:
    flops_N = np.array([work for _, _, work in samples]) * 1e6
    positions = np.arange(len(samples)) + 1000
    return pack_samples(positions, build_counts(samples), flops_N, limits or PackLimits(100, 8), world_size)


@given(SAMPLES, st.integers(1, 5))
def test_every_sample_is_in_one_pack_and_no_pack_is_too_large(samples: list[Sample], world_size: int) -> None:
    step = pack(samples, world_size)
    assert {len(packs) for packs in step.packs_by_rank} == {step.grad_accum_steps}
    packs = [[samples[position - 1000] for position in own] for rank in step.packs_by_rank for own in rank]
    positions = [position for rank in step.packs_by_rank for own in rank for position in own]
    assert sorted(positions) == [1000 + index for index in range(len(samples))]
    for members in packs:
        assert sum(tokens for tokens, _, _ in members) <= 100
        assert sum(tiles for _, tiles, _ in members) <= 8 or len([tiles for _, tiles, _ in members if tiles]) == 1
    assert step.packs_by_rank == pack(samples, world_size).packs_by_rank, "equal input, equal packs"


@given(SAMPLES, st.integers(1, 5))
def test_a_step_takes_as_long_as_the_largest_packs_and_no_longer_than_without_packing(
    samples: list[Sample], world_size: int
) -> None:
    step = pack(samples, world_size)
    work = [
        [sum(samples[position - 1000][2] for position in rank[micro_step]) for rank in step.packs_by_rank]
        for micro_step in range(step.grad_accum_steps)
    ]
    assert step.lockstep_work == sum(map(max, work))
    assert step.work == sum(map(sum, work))
    one_by_one = [sample[2] for sample in samples]
    unpacked_work = sum(max(one_by_one[start : start + world_size]) for start in range(0, len(samples), world_size))
    assert step.unpacked_lockstep_work == unpacked_work
    assert step.lockstep_work <= unpacked_work


@given(SAMPLES, st.integers(1, 5), st.integers(1, 5))
def test_the_samples_of_a_step_do_not_depend_on_the_number_of_ranks(
    samples: list[Sample], one_size: int, other_size: int
) -> None:
    one, other = (
        sorted(position for rank in pack(samples, size).packs_by_rank for own in rank for position in own)
        for size in (one_size, other_size)
    )
    assert one == other


def test_a_step_without_enough_samples_leaves_packs_of_the_last_ranks_empty() -> None:
    step = pack([(50, 1, 5)] * 2, 3)
    assert sorted(map(len, (packs[0] for packs in step.packs_by_rank))) == [0, 1, 1]
    assert step.lockstep_efficiency == pytest.approx(2 / 3)


def test_a_sample_over_the_tile_limit_shares_its_pack_with_text_only() -> None:
    step = pack([(40, 20, 9), (30, 0, 1), (30, 1, 3), (60, 7, 5), (10, 1, 1)], 1)
    own = next(packs for packs in step.packs_by_rank[0] if 1000 in packs)
    assert set(own) <= {1000, 1001}


# The bars that a step of 8, 64 and 128 ranks has to reach.
@pytest.mark.parametrize(("world_size", "least"), [(8, 0.95), (32, 0.95), (64, 0.93), (128, 0.9)])
@pytest.mark.parametrize("stage", get_args(TrainingStage))
def test_ranks_in_lock_step_work_nearly_all_the_time(stage: TrainingStage, world_size: int, least: float) -> None:
    recipe = load_recipe("paper-7b")
    stage_config, n_steps = recipe.get_stage(stage), 12
    counts = draw_stage_counts(recipe, stage, n_steps * stage_config.global_batch_size, seed=1)
    packer = StepPacker(
        counts,
        BatchOrder(len(counts), stage_config.global_batch_size, recipe.seed),
        build_sample_flops(compute_recipe_sizes(recipe), stage_config),
        PackLimits.for_stage(recipe, stage),
        world_size,
    )
    steps = [packer.pack_step(step) for step in range(n_steps)]
    efficiency = sum(step.work for step in steps) / (world_size * sum(step.lockstep_work for step in steps))
    assert efficiency >= least
    assert all(len(step.counts.n_tokens) == stage_config.global_batch_size for step in steps)
