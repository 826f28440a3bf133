"""Cost of training a model: parameters, floating-point operations per sample, memory per GPU.

Operations are counted as the field counts model FLOPs: every multiply and add of the forward and backward pass once,
attention by the mean length of a sample (packed samples do not see each other), nothing for recomputation, norms and
softmax. Memory follows the ZeRO paper (arXiv 1910.02054 §3.1) with the training loop's types; activations are
estimates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mvl_training.data.pack_plan import SampleCounts
from mvl_training.data.step_packs import SampleFlops
from mvl_training.recipe import ModelComponent, Recipe, StageConfig

if TYPE_CHECKING:
    from mvl_training.model.student_model import Student  # needs torch, which forecasts of studies do without

_Count = TypeVar("_Count", float, np.ndarray)

GIB = 1 << 30
NF4_BYTES = 1 / 2 + 1 / 64
"""Of a weight in 4 bits: one byte of scale for 64 of them."""
MODEL_COMPONENTS: tuple[ModelComponent, ...] = ("language", "projector", "vision")

PEAK_TFLOPS_BY_DEVICE = {
    "H100": 989,
    "H200": 989,
    "H800": 989,
    "H20": 148,
    "GH200": 989,
    "B200": 2250,
    "A100": 312,
    "A800": 312,
}
"""Dense bf16 peak by a word in the device's name (NVIDIA's data sheets, SXM)."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes of a model.

    Attributes:
        params: Number of parameters by component.
        matmul_params: Parameters in matrices that every token (or patch) is multiplied with, by component.
        head_params: Parameters of the language head, which are part of the language component's.
        n_layers: Layers of the language tower.
        hidden_size: Width of the language tower.
        intermediate_size: Width of its feed-forward layers.
        n_vision_layers: Layers of the vision tower.
        vision_hidden_size: Width of the vision tower.
        patches_per_tile: Patches of one tile, which the vision tower works on.
        attended_patches: Patches that a patch attends to in the vision tower, on average.
        features_per_tile: Features of one tile that the projector works on.
        linear_widths: Inputs and outputs of the language tower's linear layers, summed by name, of which adapters of
            rank 1 have as many parameters.
    """

    params: dict[ModelComponent, int]
    matmul_params: dict[ModelComponent, int]
    head_params: int
    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_vision_layers: int
    vision_hidden_size: int
    patches_per_tile: int
    attended_patches: float
    features_per_tile: int
    linear_widths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """GiB on one GPU under one ZeRO stage.

    Attributes:
        weights_gib: Weights.
        gradients_gib: Gradients.
        optimizer_gib: Optimizer states.
        activations_gib: Activations of one pack, with the recipe's gradient checkpointing.
        host_gib: Memory of the machine for the GPU's share of the optimizer states, if they are offloaded.
    """

    weights_gib: float
    gradients_gib: float
    optimizer_gib: float
    activations_gib: float
    host_gib: float

    @property
    def total_gib(self) -> float:
        return self.weights_gib + self.gradients_gib + self.optimizer_gib + self.activations_gib


def compute_recipe_sizes(recipe: Recipe) -> ModelSizes:
    """Return the sizes of a recipe's model, from its modules on the meta device.

    Raises:
        MvlError: The config of a tower cannot be read.
    """
    from mvl_training.model.students.choose import choose_student_class

    return compute_model_sizes(choose_student_class(recipe).build_shell(recipe))


def compute_model_sizes(student: Student) -> ModelSizes:
    """Return the sizes of a student whose parameters are whole (not yet partitioned by ZeRO-3)."""
    vlm, vision = student.vlm, student.describe_vision()
    text_config = vlm.config.text_config
    params = dict.fromkeys(MODEL_COMPONENTS, 0)
    matmul_params = dict.fromkeys(MODEL_COMPONENTS, 0)
    word_embedding, head = vlm.get_input_embeddings().weight, vlm.get_output_embeddings().weight
    for name, parameter in student.named_parameters():
        component = student.find_component(name) or "vision"
        params[component] += parameter.numel()
        # The word embedding is looked up, not multiplied with; tied to the head, it is both.
        is_lookup_only = parameter is word_embedding and word_embedding is not head
        is_position = "position_embedding" in name or "pos_embed." in name
        if parameter.dim() >= 2 and not is_lookup_only and not is_position:
            matmul_params[component] += parameter.numel()
    linear_widths: Counter[str] = Counter()
    for name, module in vlm.model.language_model.named_modules():
        if hasattr(module, "in_features"):
            linear_widths[name.rpartition(".")[2]] += module.in_features + module.out_features
    return ModelSizes(
        params=params,
        matmul_params=matmul_params,
        head_params=head.numel(),
        n_layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        intermediate_size=text_config.intermediate_size,
        n_vision_layers=vision.n_layers,
        vision_hidden_size=vision.hidden_size,
        patches_per_tile=vision.patches_per_tile,
        attended_patches=vision.attended_patches,
        features_per_tile=vision.features_per_tile,
        linear_widths=linear_widths,
    )


def count_trained_params(sizes: ModelSizes, stage_config: StageConfig) -> dict[ModelComponent, int]:
    """Return how many parameters learn, by component; of the language tower with adapters theirs."""
    trained = {component: sizes.params[component] for component in stage_config.learning_rates}
    if (lora := stage_config.lora) is not None:
        trained["language"] = lora.rank * sum(sizes.linear_widths.get(target, 0) for target in lora.targets)
    return trained


def compute_weight_bytes(sizes: ModelSizes, stage_config: StageConfig) -> float:
    """Return the bytes of a model's weights, in the precision of the stage or, where the recipe says so, in 4 bits."""
    n_quantized = 0
    if stage_config.lora is not None and stage_config.lora.quantization is not None:
        n_quantized = sizes.matmul_params["language"] - sizes.head_params
    n_whole = sum(sizes.params.values()) - n_quantized
    return n_whole * (2 if stage_config.precision == "bf16" else 4) + n_quantized * NF4_BYTES


def compute_sample_flops(
    sizes: ModelSizes, stage_config: StageConfig, n_tokens: _Count, n_tiles: _Count, n_loss_tokens: _Count | None = None
) -> _Count:
    """Return the model FLOPs of one sample, forward and backward; of each sample, if the counts are arrays.

    Per parameter and token: 2 forward; 4 more backward if the component learns; 2 more backward if only the gradients
    of activations pass through it to a component that learns.

    Args:
        sizes: Sizes of the model.
        stage_config: Says which components learn.
        n_tokens: Language-model tokens of the sample.
        n_tiles: Vision tiles of the sample.
        n_loss_tokens: Tokens among them that the language head runs on; None (unknown) counts it on all.
    """
    has_trained_upstream = {"vision": False, "projector": "vision" in stage_config.learning_rates}
    has_trained_upstream["language"] = has_trained_upstream["projector"] or "projector" in stage_config.learning_rates
    flops_factors = {
        component: 6 if component in stage_config.learning_rates else 4 if has_trained_upstream[component] else 2
        for component in MODEL_COMPONENTS
    }
    if stage_config.lora is not None:
        # Gradients of activations alone; adapters are small.
        flops_factors["language"] = 4
    attention_macs = sizes.n_layers * sizes.hidden_size * n_tokens
    skipped_head_macs = 0.0 if n_loss_tokens is None else (n_tokens - n_loss_tokens) * sizes.head_params
    language_flops = flops_factors["language"] * (
        n_tokens * (sizes.matmul_params["language"] + attention_macs) - skipped_head_macs
    )
    n_patches = n_tiles * sizes.patches_per_tile
    vision_attention_macs = 2 * sizes.n_vision_layers * sizes.vision_hidden_size * sizes.attended_patches
    return (
        language_flops
        + flops_factors["vision"] * n_patches * (sizes.matmul_params["vision"] + vision_attention_macs)
        + flops_factors["projector"] * n_tiles * sizes.features_per_tile * sizes.matmul_params["projector"]
    )


def build_sample_flops(sizes: ModelSizes, stage_config: StageConfig) -> SampleFlops:
    """Return a function that computes the model FLOPs of samples from their counts; the head runs on loss tokens."""

    def compute(counts: SampleCounts) -> np.ndarray:
        n_tokens, n_tiles, n_loss_tokens = (
            array.astype(np.float64) for array in (counts.n_tokens, counts.n_tiles, counts.n_loss_tokens)
        )
        return compute_sample_flops(sizes, stage_config, n_tokens, n_tiles, n_loss_tokens)

    return compute


def estimate_micro_step_traffic(sizes: ModelSizes, stage_config: StageConfig, world_size: int) -> float:
    """Return the GiB that a rank receives from the others in one micro-step, whatever its pack holds.

    ZeRO-3 gathers the weights for the forward and again for the backward pass, and reduces the gradients; ZeRO-2 only
    reduces the gradients; below, the ranks exchange once a step.
    """
    n_trained_params = sum(count_trained_params(sizes, stage_config).values())
    n_values = {2: n_trained_params, 3: 2 * sum(sizes.params.values()) + n_trained_params}.get(
        stage_config.zero_stage, 0
    )
    return n_values * (2 if stage_config.precision == "bf16" else 4) * (world_size - 1) / world_size / GIB


def estimate_memory(sizes: ModelSizes, stage_config: StageConfig, zero_stage: int, n_gpus: int) -> GpuMemory:
    """Return the memory that one GPU needs under a ZeRO stage.

    Args:
        sizes: Parameters and layers of the model.
        stage_config: Precision, trained components and sequence length of the training stage.
        zero_stage: 0 to 3: what is divided among the GPUs.
        n_gpus: Number of GPUs.
    """
    is_bf16 = stage_config.precision == "bf16"
    n_trained_params = sum(count_trained_params(sizes, stage_config).values())
    n_shards = {level: n_gpus if zero_stage >= level else 1 for level in (1, 2, 3)}
    # AdamW's two moments, and in bf16 the weights once more in fp32.
    optimizer_gib = n_trained_params * (12 if is_bf16 else 8) / n_shards[1] / GIB
    is_offloaded = stage_config.offload and zero_stage > 0
    return GpuMemory(
        weights_gib=compute_weight_bytes(sizes, stage_config) / n_shards[3] / GIB,
        gradients_gib=n_trained_params * 4 / n_shards[2] / GIB,
        optimizer_gib=0.0 if is_offloaded else optimizer_gib,
        activations_gib=_estimate_activation_bytes(sizes, stage_config, 2 if is_bf16 else 4) / GIB,
        host_gib=optimizer_gib if is_offloaded else 0.0,
    )


def _estimate_activation_bytes(sizes: ModelSizes, stage_config: StageConfig, bytes_per_value: int) -> float:
    """Estimate the bytes kept for the backward pass of one full pack in the language tower, without logits."""
    layer_bytes = stage_config.pack_tokens * (6 * sizes.hidden_size + 4 * sizes.intermediate_size) * bytes_per_value
    if stage_config.gradient_checkpointing:
        return sizes.n_layers * stage_config.pack_tokens * sizes.hidden_size * bytes_per_value + layer_bytes
    return sizes.n_layers * layer_bytes
