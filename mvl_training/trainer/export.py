"""Checkpoints as folders that transformers and vLLM load as they are (llava-hf layout).

Belongs here: gathering a checkpoint's weights and writing an export whole. Does not: names and small files (`hub`).
"""

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

from mvl_training.model.hf_layout import hub_name
from mvl_training.trainer.checkpoint import TAG, CheckpointError, read, sync_tree

PROVENANCE = "mvl.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def export_checkpoint(checkpoint: Path, out: Path) -> Path:
    """Turn a training checkpoint folder (`…/checkpoints/step-00000120`) into a llava-hf folder.

    The folder holds config, processor, tokenizer, chat template, safetensors in the stage's precision, and `mvl.json`
    (which run, recipe, plan and versions made it). It appears whole or not at all and replaces an older one. Returns
    `out`. Raises CheckpointError. `python -m mvl_training.trainer.main` leaves one in `<out>/export` when a stage ends.
    """
    state = read(checkpoint)
    settings = state.recipe["stages"][state.stage]
    config = json.loads((checkpoint / "model" / "config.json").read_text(encoding="utf-8"))
    dtype = DTYPES[settings["precision"]]
    weights = _weights(checkpoint, state.zero, dtype, state.weights)
    if config.get("tie_word_embeddings"):
        weights.pop("language_model.lm_head.weight", None)
    building = out.parent / f".building-{out.name}"
    if building.exists():
        shutil.rmtree(building)
    shutil.copytree(checkpoint / "model", building)
    save_torch_state_dict(weights, building, metadata={"format": "pt"})
    config["dtype"] = str(dtype).removeprefix("torch.")
    (building / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    provenance: dict[str, Any] = {
        "run": state.run,
        "stage": state.stage,
        "step": state.step,
        "plan_version": state.plan_version,
        "recipe": state.recipe,
        **state.provenance,
    }
    (building / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    sync_tree(building)
    if out.exists():
        shutil.rmtree(out)
    building.rename(out)
    return out


def _weights(checkpoint: Path, zero: int, dtype: torch.dtype, expected: Sequence[str]) -> dict[str, torch.Tensor]:
    """By published name, each tensor with memory of its own (gathered ones are views into DeepSpeed's flat buffers)."""
    ours = gathered(checkpoint, zero)
    if missing := sorted(set(expected) - set(ours)):
        raise CheckpointError(f"{checkpoint} lacks {len(missing)} weights, such as {missing[0]}")
    return {hub_name(name): ours.pop(name).to(dtype, copy=True).contiguous() for name in list(ours)}


def gathered(checkpoint: Path, zero: int) -> dict[str, torch.Tensor]:
    """All weights by their name in `Student`, float32 for ZeRO-1 to 3 (the master copy), else as the model had them."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    weights: dict[str, torch.Tensor] = {}
    file = checkpoint / TAG / "mp_rank_00_model_states.pt"
    try:
        if zero < 3:
            # Frozen weights are here; ZeRO-1 puts them nowhere else.
            weights |= torch.load(file, map_location="cpu", weights_only=False)["module"]
        if zero > 0:
            from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                weights |= get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag=TAG)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{checkpoint}: the weights cannot be gathered ({error})") from error
    return weights
