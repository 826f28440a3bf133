"""The released training's step: one sample at a time through transformers' own forward, all logits at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from gpu_step_parts.data import StepData
from mvl_training.data.chat_format import IGNORE_INDEX
from mvl_training.model.students.llava_onevision import LlavaOnevisionStudent

REFERENCE_ATTENTION = "sdpa"

ModelInputs = dict[str, torch.Tensor]


def load_reference_samples(data: StepData, positions: Sequence[int] | np.ndarray) -> list[ModelInputs]:
    """Return samples as arguments of transformers' forward, in the CPU's memory."""
    samples = []
    for position in positions:
        batch = data.loader.load([int(position)])
        (row_id,) = batch.row_ids
        labels_L = torch.full_like(batch.targets_L, IGNORE_INDEX)
        labels_L[1:] = batch.targets_L[:-1]
        inputs = {"input_ids": batch.input_ids_1L, "labels": labels_L[None]}
        if batch.layouts:
            inputs["pixel_values"] = batch.tiles_T3PP[None]
            inputs["image_sizes"] = torch.tensor([data.image_sizes[row_id]])
        samples.append(inputs)
    return samples


@contextmanager
def use_reference_attention(student: LlavaOnevisionStudent) -> Iterator[None]:
    """Let the language tower attend as the reference does; afterwards samples of a pack do not see each other again."""
    student.llava.model.language_model.set_attn_implementation(REFERENCE_ATTENTION)
    try:
        yield
    finally:
        student.pack_attention()


def move_inputs(inputs: ModelInputs, device: torch.device) -> ModelInputs:
    return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}


def compute_reference_loss(student: LlavaOnevisionStudent, inputs: ModelInputs) -> torch.Tensor:
    """Return the mean loss of one sample; a blank tile passes the vision tower where it has no image, as released."""
    if "pixel_values" in inputs:
        dtype = student.llava.get_input_embeddings().weight.dtype
        pixels = (inputs["pixel_values"].float() / 127.5 - 1.0).to(dtype)
        loss: Any = student.llava(**inputs | {"pixel_values": pixels}, use_cache=False).loss
        return loss
    side = student.grid.tile_size
    blank_tile_T3PP = torch.full((1, 3, side, side), 127, dtype=torch.uint8, device=inputs["input_ids"].device)
    _, zero = student.compute_visual_features(blank_tile_T3PP, ())
    loss = student.llava(**inputs, use_cache=False).loss
    return loss + zero.float()
