"""The model: `paper-7b` with random weights, and with as many layers as fit on the device."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from training_parts.common import SEED, STAGE

from gpu_step_parts.common import RunSize
from mvl_training.data.processing import load_tokenizer
from mvl_training.model.cost_model import GIB, compute_recipe_sizes, estimate_memory
from mvl_training.model.students import llava_onevision
from mvl_training.model.students.llava_onevision import LlavaOnevisionStudent
from mvl_training.recipe import Recipe, load_recipe, parse_recipe

MARGIN_GIB = 24.0
"""What the forecast of memory lacks, assumed without having seen it on a GPU: CUDA, the vision tower's activations,
logits, gathered weights, DeepSpeed's buckets, gradients in fp32 of the group that is updated, fragmentation."""


def get_vocab_size(*, tiny: bool) -> int:
    return 512 if tiny else int(load_recipe("paper-7b").to_dict()["language"]["sizes"]["vocab_size"])


def build_recipe(
    run_size: RunSize,
    tokenizer_dir: Path,
    length_name: str,
    *,
    n_layers: int | None = None,
    precision: str | None = None,
) -> Recipe:
    """Return the stage of `paper-7b` with towers from scratch, optionally of `n_layers` layers, in packs of a length.

    What only long runs need is off: measurements on held-out samples and the check for spikes of the loss.
    """
    data = load_recipe("paper-7b").to_dict()
    text_sizes, vision_sizes = data["language"]["sizes"], data["vision"]["sizes"]
    vision_sizes["num_hidden_layers"] -= 1  # of a pretrained tower, the last layer is deleted
    if run_size.tiny:
        text_sizes |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
        text_sizes |= {"num_key_value_heads": 2}
        vision_sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision_sizes |= {"image_size": 56}
        data["grid"] |= {"tile": 56, "patch": 14}
    if n_layers is not None:
        text_sizes["num_hidden_layers"] = n_layers
    settings = data["stages"][STAGE] | {"held_out_interval": None, "loss_spike_factor": None}
    settings |= {"global_batch_size": run_size.samples_per_step, "max_seq_len": run_size.max_seq_len}
    settings |= {"max_pack_tokens": run_size.pack_tokens[length_name]}
    settings |= {"precision": precision or ("fp32" if run_size.tiny else "bf16")}
    return parse_recipe(
        data
        | {"language": {"config": text_sizes, "tokenizer": str(tokenizer_dir)}, "vision": {"config": vision_sizes}}
        | {"stages": {STAGE: settings}}
    )


def count_fitting_layers(run_size: RunSize, tokenizer_dir: Path, device_bytes: int) -> int:
    """Return how many of the language tower's layers fit with all optimizer states in fp32.

    Raises SystemExit if not even one does.
    """
    longest = max(run_size.pack_tokens, key=run_size.pack_tokens.__getitem__)
    n_layers = count_layers(build_recipe(run_size, tokenizer_dir, longest))
    for n_kept in range(n_layers, 0, -1):
        recipe = build_recipe(run_size, tokenizer_dir, longest, n_layers=n_kept)
        stage_config = recipe.get_stage(STAGE)
        need = estimate_memory(compute_recipe_sizes(recipe), stage_config, stage_config.zero_stage, n_gpus=1)
        if (need.total_gib + MARGIN_GIB) * GIB <= device_bytes:
            return n_kept
    raise SystemExit(f"{device_bytes / GIB:.0f} GiB of memory do not hold one layer of paper-7b; use a larger GPU")


def count_layers(recipe: Recipe) -> int:
    language = recipe.towers.language
    return int((language.config or language.sizes or {})["num_hidden_layers"])


def build_student(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> LlavaOnevisionStudent:
    """Return a student with random weights; all are trained but the unused post-layernorm."""
    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(recipe)
    text_config, vision_config = llava_onevision.load_tower_configs(recipe)
    config = llava_onevision.build_llava_config(
        recipe,
        text_config,
        vision_config,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    torch.set_default_dtype(dtype)
    try:
        with device:  # drawing seven billion weights on a CPU takes minutes
            llava = llava_onevision.LlavaOnevisionForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    student = LlavaOnevisionStudent(llava, recipe.towers.grid.to_tile_grid())
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(student.find_component(name) is not None)
        if name.endswith("image_newline"):
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.numel()))
    return student.train()
