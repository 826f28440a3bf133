"""The model alone: forward and backward of packs without DeepSpeed, optimizer, loop and loader; and its equality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from training_parts.common import STAGE

from gpu_step_parts.common import Ceilings, StepWork, summarize_steps
from gpu_step_parts.data import StepData, build_step_packer
from gpu_step_parts.machine import read_peak_memory_gib, read_synchronized_clock, reset_memory
from gpu_step_parts.reference import (
    ModelInputs,
    compute_reference_loss,
    load_reference_samples,
    move_inputs,
    use_reference_attention,
)
from mvl_training.data.pack_loader import PackedBatch
from mvl_training.model.cost_model import build_sample_flops, compute_model_sizes
from mvl_training.model.students.llava_onevision import LlavaOnevisionStudent
from mvl_training.recipe import Recipe
from mvl_training.trainer.engine import count_head_chunks, enable_checkpointing

MEASURED_PACKS = 3
"""Packs of the first step; its first also warms up."""


def measure_model_alone(
    student: LlavaOnevisionStudent,
    data: StepData,
    recipe: Recipe,
    ceilings: Ceilings,
    device: torch.device,
    *,
    checkpointing: bool,
) -> dict[str, Any]:
    """Measure forward and backward of the first packs, with or without the stage's gradient checkpointing."""
    stage_config = recipe.get_stage(STAGE)
    sizes = compute_model_sizes(student)
    compute_flops = build_sample_flops(sizes, stage_config)
    packs = build_step_packer(data, recipe, sizes).pack_step(0).packs_by_rank[0][:MEASURED_PACKS]
    set_checkpointing(student, recipe, on=checkpointing)
    student.n_head_chunks = count_head_chunks(stage_config)
    reset_memory(device)
    measured = []
    try:
        for index, pack in enumerate([packs[0], *packs]):
            batch = data.loader.load(pack).to(device)
            started_at = read_synchronized_clock(device)
            (student(batch) / batch.loss_weight).backward()
            seconds = read_synchronized_clock(device) - started_at
            if index:
                counts = data.plan.read_counts(pack)
                flops = float(compute_flops(counts).sum())
                n_loss_tokens, n_tokens = batch.n_loss_tokens, int(counts.n_tokens.sum())
                measured.append(StepWork(seconds, flops, n_loss_tokens, n_tokens, len(pack)))
    finally:
        student.zero_grad(set_to_none=True)
    return summarize_steps(measured, ceilings) | {"peak_gib": read_peak_memory_gib(device)}


def set_checkpointing(student: LlavaOnevisionStudent, recipe: Recipe, *, on: bool) -> None:
    if on:
        enable_checkpointing(student, recipe.get_stage(STAGE))
    else:
        student.llava.gradient_checkpointing_disable()


def measure_parity(
    student: LlavaOnevisionStudent, data: StepData, recipe: Recipe, device: torch.device
) -> dict[str, Any]:
    """Return relative differences of loss, gradient norm and gradient: packed attention against samples one by one.

    Figures that end with `if_joined` are of the pack with all samples in one attention: what an error there costs.
    """
    packer = build_step_packer(data, recipe, compute_model_sizes(student))
    pack = max(packer.pack_step(0).packs_by_rank[0], key=len)
    batch = data.loader.load(pack).to(device)
    n_tokens = batch.input_ids_1L.shape[1]
    joined_seqlens = torch.tensor([0, n_tokens], dtype=torch.int32, device=device)
    set_checkpointing(student, recipe, on=True)
    samples = [move_inputs(inputs, device) for inputs in load_reference_samples(data, pack)]
    reference_loss, reference_gradients = run_samples(student, samples)
    reference_norm = compute_norm(reference_gradients)
    figures: dict[str, Any] = {"samples": len(pack), "tokens": n_tokens}
    figures |= {"loss_reference": reference_loss, "norm_reference": reference_norm}
    joined_batch = replace(batch, cu_seqlens=joined_seqlens, max_seqlen=n_tokens)
    for suffix, packed_batch in (("", batch), ("_if_joined", joined_batch)):
        loss, gradients = run_packed(student, packed_batch)
        differences = [a - b for a, b in zip(gradients, reference_gradients, strict=True)]
        figures |= {
            f"loss{suffix}": abs(loss - reference_loss) / abs(reference_loss),
            f"norm{suffix}": abs(compute_norm(gradients) - reference_norm) / reference_norm,
            f"gradient{suffix}": compute_norm(differences) / reference_norm,
        }
    return figures


def run_packed(student: LlavaOnevisionStudent, batch: PackedBatch) -> tuple[float, list[torch.Tensor]]:
    """Return the mean loss over the pack's samples and its gradients."""
    loss = student(batch) / batch.loss_weight
    loss.backward()
    return float(loss.detach()), take_gradients(student)


def run_samples(student: LlavaOnevisionStudent, samples: Sequence[ModelInputs]) -> tuple[float, list[torch.Tensor]]:
    """Return the same of samples one by one."""
    total_loss = 0.0
    with use_reference_attention(student):
        for inputs in samples:
            loss = compute_reference_loss(student, inputs) / len(samples)
            loss.backward()
            total_loss += float(loss.detach())
    return total_loss, take_gradients(student)


def take_gradients(student: LlavaOnevisionStudent) -> list[torch.Tensor]:
    """Return the gradients of all weights that learn, and leave none."""
    gradients = [parameter.grad for parameter in student.parameters() if parameter.requires_grad]
    student.zero_grad(set_to_none=True)
    return [gradient for gradient in gradients if gradient is not None]


def compute_norm(tensors: Sequence[torch.Tensor]) -> float:
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms)))
