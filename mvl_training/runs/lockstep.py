"""Forecast of how much of their time ranks work instead of waiting for each other, from the packs that training makes.

Also what a micro-step costs besides its pack: what the ranks exchange in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvl_assets.common.training_stages import TrainingStage
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.step_packs import CountsReader, PackLimits, StepPacker
from mvl_training.model.cost_model import ModelSizes, build_sample_flops, estimate_micro_step_traffic
from mvl_training.recipe import Recipe

REPORTED_WORLD_SIZES = (8, 32, 64, 128)
"""Numbers of ranks that are reported, besides the recipe's own."""

N_SIMULATED_STEPS = 256
"""Steps of an epoch that a forecast packs, evenly spread."""


@dataclass(frozen=True, slots=True)
class LockstepForecast:
    """How a number of ranks shares the steps of a stage.

    Attributes:
        world_size: Number of ranks.
        grad_accum_steps: Mean number of micro-steps of a step.
        pack_tokens: Mean tokens of a pack.
        efficiency: Work of all ranks / (ranks x work of the largest pack of each micro-step), over all steps. 1.0 if no
            rank ever waits for another.
        worst_step_efficiency: The lowest of a single step, without a smaller last one.
        unpacked_efficiency: The same for one sample per pack, as the released code trains.
        micro_step_gib: GiB that a rank receives in a micro-step, whatever its pack holds.
    """

    world_size: int
    grad_accum_steps: float
    pack_tokens: float
    efficiency: float
    worst_step_efficiency: float
    unpacked_efficiency: float
    micro_step_gib: float


def forecast_lockstep(
    recipe: Recipe, stage: TrainingStage, sizes: ModelSizes, plan: CountsReader, n_samples: int, world_size: int
) -> LockstepForecast:
    """Pack steps of the first epoch as training packs them.

    Args:
        recipe: The recipe.
        stage: One of its stages.
        sizes: Sizes of the recipe's model.
        plan: Has the counts of the stage's samples.
        n_samples: Number of samples.
        world_size: Number of ranks.
    """
    stage_config = recipe.get_stage(stage)
    order = BatchOrder(n_samples, stage_config.global_batch_size, recipe.seed)
    limits = PackLimits.for_stage(recipe, stage)
    packer = StepPacker(plan, order, build_sample_flops(sizes, stage_config), limits, world_size)
    n_steps = min(N_SIMULATED_STEPS, order.steps_per_epoch)
    steps = np.unique(np.linspace(0, order.steps_per_epoch - 1, n_steps).astype(int))
    packed_steps = [packer.pack_step(int(step)) for step in steps]
    work = sum(step.work for step in packed_steps)
    whole_steps = [step for step in packed_steps if len(step.counts.n_tokens) == order.global_batch_size]
    n_packs = world_size * sum(step.grad_accum_steps for step in packed_steps)
    return LockstepForecast(
        world_size=world_size,
        grad_accum_steps=n_packs / world_size / len(packed_steps),
        pack_tokens=sum(int(step.counts.n_tokens.sum()) for step in packed_steps) / n_packs,
        efficiency=work / (world_size * sum(step.lockstep_work for step in packed_steps)),
        worst_step_efficiency=min(step.lockstep_efficiency for step in whole_steps or packed_steps),
        unpacked_efficiency=work / (world_size * sum(step.unpacked_lockstep_work for step in packed_steps)),
        micro_step_gib=estimate_micro_step_traffic(sizes, stage_config, world_size),
    )


def forecast_all_sizes(
    recipe: Recipe, stage: TrainingStage, sizes: ModelSizes, plan: CountsReader, n_samples: int
) -> list[LockstepForecast]:
    """Return the forecasts for the recipe's own number of ranks and for `REPORTED_WORLD_SIZES`."""
    world_sizes = dict.fromkeys((recipe.nproc_per_node, *REPORTED_WORLD_SIZES))
    return [forecast_lockstep(recipe, stage, sizes, plan, n_samples, world_size) for world_size in world_sizes]


def render_lockstep_table(forecasts: Iterable[Mapping[str, Any]]) -> str:
    """Render forecasts (`LockstepForecast` as dictionaries) as a markdown table."""
    lines = [
        "| ranks | micro-steps | tokens of a pack | lock-step efficiency (worst step) | one sample per pack |"
        " received per micro-step |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {forecast['world_size']} | {forecast['grad_accum_steps']:.3g} | {forecast['pack_tokens']:,.0f}"
        f" | {forecast['efficiency']:.3f} ({forecast['worst_step_efficiency']:.3f})"
        f" | {forecast['unpacked_efficiency']:.3f} | {forecast['micro_step_gib']:.3g} GiB |"
        for forecast in forecasts
    ]
    return "\n".join(lines)
