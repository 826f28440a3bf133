"""Exports: checkpoints as folders in Hugging Face form, which transformers and vLLM load as they are."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from mvl_assets.common.atomic_write import replace_dir
from mvl_training.model.lora import merge_adapters
from mvl_training.model.student_model import Student
from mvl_training.model.students.choose import choose_student_class
from mvl_training.recipe import LoraConfig, parse_recipe
from mvl_training.trainer.checkpoint import DEEPSPEED_TAG, MODEL_DIR, CheckpointError, read_state
from mvl_training.trainer.run_files import PROVENANCE_FILE

DTYPE_BY_PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16}


def export_checkpoint(checkpoint: Path, export_dir: Path) -> Path:
    """Turn a training checkpoint into a folder in Hugging Face form: of LLaVA-OneVision, llava-hf's.

    The folder holds config, processor, tokenizer, chat template, safetensors in the stage's precision, and `mvl.json`
    (run, recipe, plan and package versions; `merged_adapters` if the weights are the sum of a tower's and its
    adapters'). It appears complete or not at all and replaces an older one.
    `mvl_training.trainer.export_main` writes one to `<out>/export` when a stage has ended.

    Args:
        checkpoint: The checkpoint's folder (`…/checkpoints/step-00000120`).
        export_dir: Folder of the export.

    Returns:
        `export_dir`.

    Raises:
        CheckpointError: The checkpoint is damaged or incomplete.
    """
    state = read_state(checkpoint)
    stage_config = state.recipe["stages"][state.stage]
    config = json.loads((checkpoint / MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    dtype = DTYPE_BY_PRECISION[stage_config["precision"]]
    lora = LoraConfig.model_validate(stage_config["lora"]) if stage_config.get("lora") else None
    student_class = choose_student_class(parse_recipe(state.recipe, str(checkpoint)))
    weights = _load_export_weights(student_class, checkpoint, state.zero_stage, dtype, state.parameter_names, lora)
    if student_class.hub_head_name not in map(student_class.to_hub_name, state.parameter_names):
        weights.pop(student_class.hub_head_name, None)  # it is the word embedding
    config["dtype"] = str(dtype).removeprefix("torch.")
    provenance: dict[str, Any] = {
        "run_hash": state.run_hash,
        "stage": state.stage,
        "step": state.step,
        "plan_version": state.plan_version,
        "recipe": state.recipe,
        **state.provenance,
    }
    with replace_dir(export_dir, fsync=True, unique=False) as building_dir:
        shutil.copytree(checkpoint / MODEL_DIR, building_dir, dirs_exist_ok=True)
        save_torch_state_dict(weights, building_dir, metadata={"format": "pt"})
        (building_dir / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (building_dir / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    return export_dir


def _load_export_weights(
    student_class: type[Student],
    checkpoint: Path,
    zero_stage: int,
    dtype: torch.dtype,
    parameter_names: Sequence[str],
    lora: LoraConfig | None,
) -> dict[str, torch.Tensor]:
    """Return weights by published name, each with its own memory: consolidated ones are views of flat buffers."""
    own_weights = consolidate_weights(checkpoint, zero_stage)
    if missing := sorted(set(parameter_names) - set(own_weights)):
        raise CheckpointError(f"{checkpoint} lacks {len(missing)} weights, such as {missing[0]}")
    if lora is not None:
        own_weights = merge_adapters(own_weights, lora)
    return {
        student_class.to_hub_name(name): own_weights.pop(name).to(dtype, copy=True).contiguous()
        for name in list(own_weights)
    }


def consolidate_weights(checkpoint: Path, zero_stage: int) -> dict[str, torch.Tensor]:
    """Gather all weights of a checkpoint.

    Returns:
        Weights by their name in `Student`: float32 for ZeRO-1 to 3 (the master copy), else as the model had them.

    Raises:
        CheckpointError: DeepSpeed's files cannot be read.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    weights: dict[str, torch.Tensor] = {}
    file = checkpoint / DEEPSPEED_TAG / "mp_rank_00_model_states.pt"
    try:
        if zero_stage < 3:
            # Holds the frozen weights, which ZeRO-1 saves nowhere else.
            weights |= torch.load(file, map_location="cpu", weights_only=False)["module"]
        if zero_stage > 0:
            from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                weights |= get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag=DEEPSPEED_TAG)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{checkpoint}: the weights cannot be gathered ({error})") from error
    return weights
