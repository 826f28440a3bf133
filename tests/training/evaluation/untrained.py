"""An untrained checkpoint: real files with random weights, made in a second."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict

from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.model.hf_layout import to_hub_name, write_model_files
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import Recipe, parse_recipe
from mvl_training.runs.training_run import Checkpoint
from mvl_training.trainer.checkpoint import DEEPSPEED_TAG, MODEL_DIR, STATE_FILE, CheckpointState
from mvl_training.trainer.run_files import CHECKPOINTS_DIR, PROVENANCE_FILE, format_checkpoint_name
from tests.training import tiny_model


def untrained_checkpoint(folder: Path, *, version: str = "v1", seed: int = 4) -> Checkpoint:
    """The tiny model of the training tests as an export of the stage `single_image`; another seed, other weights."""
    export = folder / "export"
    recipe, own_weights = _write_model(folder, export, seed)
    weights = {to_hub_name(name): tensor for name, tensor in own_weights.items()}
    weights.pop("language_model.lm_head.weight", None)
    save_torch_state_dict(weights, export, metadata={"format": "pt"})
    about = {"recipe": recipe.model_dump(mode="json"), "stage": "single_image"}
    (export / PROVENANCE_FILE).write_text(json.dumps(about), encoding="utf-8")
    return Checkpoint("single_image", folder, version, max_seq_len=256)


def keep_untrained_step(folder: Path, step: int, *, seed: int = 4) -> Path:
    """The same model as a training checkpoint of a step, as ZeRO-0 saves it, below a stage's `folder`."""
    kept = folder / CHECKPOINTS_DIR / format_checkpoint_name(step)
    recipe, weights = _write_model(folder, kept / MODEL_DIR, seed)
    (kept / DEEPSPEED_TAG).mkdir()
    torch.save({"module": weights}, kept / DEEPSPEED_TAG / "mp_rank_00_model_states.pt")
    state = CheckpointState(
        run_hash="r1",
        step=step,
        world_size=1,
        zero_stage=0,
        stage="single_image",
        recipe=recipe.model_dump(mode="json"),
        plan_version="p1",
        parameter_names=[name for name in weights if not name.endswith("lm_head.weight")],
        file_sizes={str(f.relative_to(kept)): f.stat().st_size for f in kept.rglob("*") if f.is_file()},
    )
    (kept / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")
    return kept


def _write_model(folder: Path, model_dir: Path, seed: int) -> tuple[Recipe, dict[str, torch.Tensor]]:
    """Write everything but the weights; return these by their own names."""
    tokenizer = tiny_model.write_tokenizer(folder / "tokenizer")
    recipe = parse_recipe(tiny_model.build_recipe_data(tokenizer) | {"seed": seed})
    torch.manual_seed(seed)
    student = start_student(recipe, ChatTokenizer.load(tokenizer))
    model_dir.mkdir(parents=True)
    write_model_files(
        student.llava, tokenizer, model_dir, grid=recipe.grid.to_tile_grid(), system_prompt=recipe.system_prompt
    )
    weights = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    for name, tensor in weights.items():
        # As they begin, the layers add next to nothing, and the model would repeat the line break it was given.
        if tensor.dim() > 1 and "embed" not in name:
            tensor *= 12
    return recipe, weights
