"""An untrained checkpoint: real files with random weights, made in a second."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict

from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.model.hf_layout import to_hub_name, write_model_files
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import parse_recipe
from mvl_training.runs.training_run import Checkpoint
from mvl_training.trainer.run_files import PROVENANCE_FILE
from tests.training import tiny_model


def untrained_checkpoint(folder: Path, *, version: str = "v1", seed: int = 4) -> Checkpoint:
    """The tiny model of the training tests as an export of the stage `single_image`; another seed, other weights."""
    tokenizer = tiny_model.write_tokenizer(folder / "tokenizer")
    recipe = parse_recipe(tiny_model.build_recipe_data(tokenizer) | {"seed": seed})
    torch.manual_seed(seed)
    student = start_student(recipe, ChatTokenizer.load(tokenizer))
    export = folder / "export"
    export.mkdir()
    write_model_files(
        student.llava, tokenizer, export, grid=recipe.grid.to_tile_grid(), system_prompt=recipe.system_prompt
    )
    weights = {to_hub_name(name): tensor.detach().clone() for name, tensor in student.state_dict().items()}
    weights.pop("language_model.lm_head.weight", None)
    for name, tensor in weights.items():
        # As they begin, the layers add next to nothing, and the model would repeat the line break it was given.
        if tensor.dim() > 1 and "embed" not in name:
            tensor *= 12
    save_torch_state_dict(weights, export, metadata={"format": "pt"})
    about = {"recipe": recipe.model_dump(mode="json"), "stage": "single_image"}
    (export / PROVENANCE_FILE).write_text(json.dumps(about), encoding="utf-8")
    return Checkpoint("single_image", folder, version, max_seq_len=256)
