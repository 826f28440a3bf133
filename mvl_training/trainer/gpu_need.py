"""How much memory a stage takes of each GPU, checked before weights are on any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_training.model.cost_model import GIB, ModelSizes, estimate_memory
from mvl_training.recipe import Recipe, RecipeError, StageConfig, parse_recipe

MAX_SUGGESTED_GPUS = 4096
"""As many are never the remedy: what is not divided does not fit."""


def check_gpu_memory(recipe: Recipe, stage: TrainingStage, sizes: ModelSizes, *, gpu_bytes: int, n_gpus: int) -> None:
    """Refuse a stage that would not fit on its GPUs.

    The forecast is that of `mvl recipe show`, with a full pack. It lacks what CUDA, NCCL and the vision tower take, so
    what is refused would not have run unless its packs are never full; then lower `max_pack_tokens` costs nothing.

    Args:
        recipe: The recipe.
        stage: One of its stages.
        sizes: Sizes of the recipe's model.
        gpu_bytes: Memory of a GPU.
        n_gpus: GPUs that share the states.

    Raises:
        MvlError: It does not fit; with the figures, and with the changes that would lower them.
    """
    stage_config = recipe.get_stage(stage)
    need = estimate_memory(sizes, stage_config, stage_config.zero_stage, n_gpus)
    if need.total_gib * GIB <= gpu_bytes:
        return
    changes = [*_iter_changes(recipe, stage, sizes, gpu_bytes, n_gpus), "GPUs with more memory"]
    raise MvlError(
        f"{stage} of recipe {recipe.name} takes about {need.total_gib:.3g} GiB of each GPU of {n_gpus} under"
        f" ZeRO-{stage_config.zero_stage} (weights {need.weights_gib:.3g}, gradients {need.gradients_gib:.3g},"
        f" optimizer {need.optimizer_gib:.3g}, activations {need.activations_gib:.3g}),"
        f" and a GPU has {gpu_bytes / GIB:.3g} GiB",
        hint=f"what would lower it, alone or together: {', '.join(changes)}",
    )


def _iter_changes(
    recipe: Recipe, stage: TrainingStage, sizes: ModelSizes, gpu_bytes: int, n_gpus: int
) -> Iterator[str]:
    """Yield changes that lower the need, each with the GiB that it leads to."""

    def compute_need(stage_config: StageConfig, n_gpus: int) -> float:
        return estimate_memory(sizes, stage_config, stage_config.zero_stage, n_gpus).total_gib

    stage_config = recipe.get_stage(stage)
    need = compute_need(stage_config, n_gpus)
    more_gpus = n_gpus
    while more_gpus < MAX_SUGGESTED_GPUS:
        more_gpus *= 2
        if (lower := compute_need(stage_config, more_gpus)) * GIB <= gpu_bytes:
            yield f"{more_gpus} GPUs ({lower:.3g} GiB)"
            break
    settings: dict[str, Any] = {
        "zero_stage": 3,
        "gradient_checkpointing": True,
        "max_pack_tokens": stage_config.max_seq_len,
        "offload": True,
    }
    for name, value in settings.items():
        data = recipe.to_dict()
        data["stages"][stage][name] = value
        try:
            changed = parse_recipe(data).get_stage(stage)
        except RecipeError:  # as ZeRO-3 of weights in 4 bits
            continue
        if (lower := compute_need(changed, n_gpus)) < need:
            yield f"`{name}: {str(value).lower()}` ({lower:.3g} GiB)"
