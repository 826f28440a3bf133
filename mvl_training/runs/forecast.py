"""Forecast of a training stage's cost: steps, floating-point operations, memory per GPU, GPU-days."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import PackPlan
from mvl_training.model.cost_model import (
    GIB,
    GpuMemory,
    ModelSizes,
    compute_sample_flops,
    count_trained_params,
    estimate_memory,
)
from mvl_training.recipe import ExpectedData, ModelComponent, Recipe
from mvl_training.runs.lockstep import LockstepForecast, forecast_lockstep
from mvl_training.runs.sample_shapes import draw_stage_counts
from mvl_training.trainer.disk_need import count_checkpoints, forecast_checkpoint_bytes

N_DRAWN_STEPS = 64
"""Steps of drawn samples that stand for a stage without a plan."""


@dataclass(frozen=True, slots=True)
class StageForecast:
    """The forecast of one stage.

    Attributes:
        recipe: Name of the recipe.
        stage: The training stage.
        params: Number of parameters by component.
        learning_rates: Learning rates of the components that learn.
        data: Number of samples and their mean size.
        basis: Where `data` comes from, in words.
        n_steps: Optimizer steps.
        n_samples: Samples of all steps.
        flops: Model FLOPs of the whole stage.
        flops_per_token: Mean model FLOPs of a token.
        zero_stage: The recipe's ZeRO stage.
        n_gpus: GPUs that share the states.
        memory: Memory per GPU by ZeRO stage, on `n_gpus` GPUs.
        trained_params: Number of parameters that learn by component; of the language tower with adapters theirs.
        checkpoint_gib: Size of a checkpoint.
        n_checkpoints: Most checkpoints at a time.
        lockstep: How the GPUs share the steps: of the plan, or of samples drawn as in `sample_shapes`.
    """

    recipe: str
    stage: TrainingStage
    params: dict[ModelComponent, int]
    learning_rates: dict[ModelComponent, float]
    data: ExpectedData
    basis: str
    n_steps: int
    n_samples: int
    flops: float
    flops_per_token: float
    zero_stage: int
    n_gpus: int
    memory: dict[int, GpuMemory]
    lockstep: LockstepForecast
    trained_params: dict[ModelComponent, int]
    checkpoint_gib: float
    n_checkpoints: int

    def compute_gpu_days(self, mfu: float, peak_flops: float) -> float:
        """Return the days of one GPU with a dense bf16 peak of `peak_flops` FLOP/s.

        Args:
            mfu: Utilisation while a GPU works; it also waits for the others.
            peak_flops: Of the GPU.
        """
        return self.flops / (mfu * self.lockstep.efficiency * peak_flops) / 86400

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain data, for JSON."""
        memory = {
            f"zero_{zero_stage}": {**asdict(gpu_memory), "total_gib": gpu_memory.total_gib}
            for zero_stage, gpu_memory in self.memory.items()
        }
        return {**asdict(self), "data": self.data.model_dump(), "memory": memory}


def forecast_stage(
    recipe: Recipe, stage: TrainingStage, sizes: ModelSizes, *, n_gpus: int, plan: PackPlan | None = None
) -> StageForecast:
    """Forecast a stage on `n_gpus` GPUs.

    Args:
        recipe: The recipe.
        stage: One of its stages.
        sizes: Sizes of the recipe's model.
        n_gpus: GPUs that share the states.
        plan: The stage's pack plan; without one, the data is what the recipe expects.

    Raises:
        MvlError: Neither a plan nor expected data is given.
    """
    stage_config = recipe.get_stage(stage)
    data = stage_config.expected if plan is None else _measure_plan_data(plan)
    if data is None:
        raise MvlError(
            f"stage {stage} of recipe {recipe.name} has neither a pack plan nor `expected` data",
            hint=f"materialise pack_plan/{stage}, or give the stage `expected: {{samples: …, …}}`",
        )
    counts = plan or draw_stage_counts(recipe, stage, N_DRAWN_STEPS * stage_config.global_batch_size, recipe.seed)
    batch_order = BatchOrder(data.samples, stage_config.global_batch_size, recipe.seed)
    n_steps = stage_config.steps or stage_config.epochs * batch_order.steps_per_epoch
    n_samples = batch_order.count_samples(n_steps)
    flops_per_sample = compute_sample_flops(sizes, stage_config, data.tokens, data.tiles)
    return StageForecast(
        recipe=recipe.name,
        stage=stage,
        params=sizes.params,
        learning_rates=dict(stage_config.learning_rates),
        data=data,
        basis="assumed by the recipe" if plan is None else "the pack plan",
        n_steps=n_steps,
        n_samples=n_samples,
        flops=flops_per_sample * n_samples,
        flops_per_token=flops_per_sample / data.tokens,
        zero_stage=stage_config.zero_stage,
        n_gpus=n_gpus,
        memory={zero_stage: estimate_memory(sizes, stage_config, zero_stage, n_gpus) for zero_stage in (0, 1, 2, 3)},
        lockstep=forecast_lockstep(recipe, stage, sizes, counts, len(counts), n_gpus),
        trained_params=count_trained_params(sizes, stage_config),
        checkpoint_gib=forecast_checkpoint_bytes(sizes, stage_config) / GIB,
        n_checkpoints=count_checkpoints(stage_config, n_steps),
    )


def _measure_plan_data(plan: PackPlan) -> ExpectedData:
    return ExpectedData(
        samples=len(plan), tokens=float(plan.counts.n_tokens.mean()), tiles=float(plan.counts.n_tiles.mean())
    )
