"""Loads a checkpoint into DeepSpeed's engine, also one that another number of ranks saved."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from mvl_assets.common.text import format_exception_line
from mvl_training.trainer.checkpoint import DEEPSPEED_TAG, CheckpointError, CheckpointState
from mvl_training.trainer.collective import wait_for_all_ranks
from mvl_training.trainer.universal_checkpoint import convert_to_universal


def load_checkpoint(engine: Any, checkpoint: Path, state: CheckpointState, *, world_size: int, zero_stage: int) -> None:
    """Load a checkpoint into the engine. Collective.

    One saved by another number of ranks is converted to DeepSpeed's universal form first; the engine must have been
    built for that (`build_engine(load_universal=True)`). Weights and optimizer states are then equal; sums over ranks
    are rounded in another order.

    Args:
        engine: DeepSpeed's.
        checkpoint: The checkpoint's folder.
        state: State of the checkpoint.
        world_size: Number of ranks of this run.
        zero_stage: ZeRO stage of this run.

    Raises:
        CheckpointError: The ZeRO stages differ, or the checkpoint cannot be converted or loaded.
    """
    if state.zero_stage != zero_stage:
        raise CheckpointError(
            f"{checkpoint} was saved with ZeRO-{state.zero_stage}; this run has ZeRO-{zero_stage}",
            hint=f"set the recipe's `zero_stage` back to {state.zero_stage}, or start again with --resume never",
        )
    is_converted = needs_universal_conversion(state, world_size)
    load_dir = convert_to_universal(checkpoint) if is_converted else checkpoint
    saved_groups = [_drop_params(group) for group in engine.optimizer.param_groups] if is_converted else []
    hint = "start again with --resume never"
    try:
        loaded_path, _ = engine.load_checkpoint(str(load_dir), tag=DEEPSPEED_TAG, load_lr_scheduler_states=False)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        message = f"{checkpoint} could not be loaded ({format_exception_line(error)})"
        raise CheckpointError(message, hint=hint) from error
    if loaded_path is None:
        raise CheckpointError(f"{checkpoint} could not be loaded", hint=hint)
    if is_converted:
        unshare_optimizer_state(engine.optimizer, saved_groups, zero_stage)
        wait_for_all_ranks()
        if dist.get_rank() == 0:
            shutil.rmtree(load_dir)


def needs_universal_conversion(state: CheckpointState, world_size: int) -> bool:
    """Return whether `world_size` ranks cannot read the checkpoint as it is; without ZeRO each rank has everything."""
    return state.world_size != world_size and state.zero_stage > 0


def _drop_params(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def unshare_optimizer_state(optimizer: Any, saved_groups: list[dict[str, Any]], zero_stage: int) -> None:
    """Undo DeepSpeed's merging of optimizer settings and states when it loads a universal checkpoint.

    After it (`load_hp_checkpoint_state_from_checkpoint_dir_stage3` under ZeRO-3) every parameter group has the settings
    of the first, and the optimizer states of all sub-groups share one `step` tensor, which the optimizer would
    then count up once per sub-group.

    Args:
        optimizer: DeepSpeed's, around torch's.
        saved_groups: Settings of the parameter groups from before the load.
        zero_stage: Only ZeRO-3 shares the `step` tensor.
    """
    for group, settings in zip(optimizer.param_groups, saved_groups, strict=True):
        group.update(settings)
    if zero_stage == 3:
        for parameter_state in optimizer.optimizer.state.values():
            parameter_state["step"] = parameter_state["step"].clone()
