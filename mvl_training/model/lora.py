"""LoRA: low-rank adapters on the linear layers of the language tower (arXiv 2106.09685), by `peft`.

The tower's own weights stay as they are. An export is the sum of both: for transformers and vLLM a model as any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mvl_assets.errors import MvlError
from mvl_training.model.quantization import dequantize_weights, quantize_linear_layers
from mvl_training.model.student_model import Student
from mvl_training.recipe import LoraConfig

ADAPTER = "default"
_BASE = ".base_layer."
_DOWN, _UP = (f".lora_{matrix}.{ADAPTER}.weight" for matrix in "AB")


def add_adapters(student: Student, lora: LoraConfig, *, seed: int, compute_dtype: torch.dtype = torch.float32) -> None:
    """Put adapters into a student, the same on every rank; a new one adds nothing to its layer.

    With `quantization` the layers of the language tower have weights in 4 bits from then on.

    Args:
        student: The student.
        lora: What the recipe says.
        seed: Of the first matrix of each adapter.
        compute_dtype: Type in which the stage computes; only layers with weights in 4 bits have to know it.

    Raises:
        MvlError: The language tower has no layer of the name of a target, or `quantization` lacks its package.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    tower = student.vlm.model.language_model
    leaves = {name.rpartition(".")[2] for name, module in tower.named_modules() if isinstance(module, nn.Linear)}
    if unknown := sorted(set(lora.targets) - leaves):
        raise MvlError(
            f"`lora` names {', '.join(unknown)}, which the language tower has not",
            hint=f"its linear layers are {', '.join(sorted(leaves))}",
        )

    if lora.quantization is not None:
        quantize_linear_layers(tower, compute_dtype)
        # Where peft looks before it wraps such a layer.
        student.vlm.is_loaded_in_4bit = True

    dtype = student.vlm.get_input_embeddings().weight.dtype
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        # Layers of the vision tower have some of the same names.
        target_modules=rf".*language_model\..*\.({'|'.join(lora.targets)})",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, student.vlm, adapter_name=ADAPTER)
    for name, parameter in student.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.to(dtype)


def is_adapter(parameter_name: str) -> bool:
    """Return whether a parameter belongs to an adapter."""
    return ".lora_" in parameter_name


def merge_adapters(weights: Mapping[str, torch.Tensor], lora: LoraConfig) -> dict[str, torch.Tensor]:
    """Return a student's weights with its adapters added to them, under the names that they have without.

    Args:
        weights: By name, of a student with adapters; sums are taken in float32.
        lora: What the recipe says.
    """
    if lora.quantization is not None:
        weights = dequantize_weights(weights)
    merged: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if is_adapter(name):
            continue
        layer, is_adapted, leaf = name.partition(_BASE)
        if is_adapted and leaf == "weight":
            down, up = weights[layer + _DOWN], weights[layer + _UP]
            weight = weight.float() + lora.alpha / lora.rank * (up.float() @ down.float())
        merged[name.replace(_BASE, ".")] = weight
    return merged
