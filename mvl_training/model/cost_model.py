"""What a stage costs before it runs: parameters, steps, floating-point operations, memory per GPU, days.

Belongs here: arithmetic over a recipe and the sizes of its data. Does not: measuring (`metrics`), printing (`cli`).

Operations are counted as the field counts model FLOPs: every multiply and add of the forward and backward pass once,
attention by the mean length of a sample (packed samples do not see each other), nothing for recomputation, norms and
softmax. Memory follows the ZeRO paper (arXiv 1910.02054 §3.1) with this loop's types; activations are estimates.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.media.tiles import TileGrid
from mvl_training.data.batch_order import Order
from mvl_training.data.pack_plan import PackPlan
from mvl_training.recipe import Expected, Part, Recipe, Stage, StageName

GIB = 1 << 30
PARTS: tuple[Part, ...] = ("language", "projector", "vision")


@dataclass(frozen=True, slots=True)
class Sizes:
    """A model by part: all parameters, and those in matrices that every token (or patch) is multiplied with. `head`:
    how many of the language part's are the word head's."""

    parameters: dict[Part, int]
    multiplied: dict[Part, int]
    head: int
    layers: int
    width: int
    inner: int
    vision_layers: int
    vision_width: int
    patches: int


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB on one GPU under one ZeRO stage. `activations` is of one pack, with the recipe's gradient checkpointing;
    `host` is what the GPU's share of the optimizer takes of the machine's memory instead, where it is offloaded."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    host: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True, slots=True)
class Forecast:
    """One stage. `samples` counts those of all steps, `flops` is of the whole stage, `memory` by ZeRO stage on `gpus`
    GPUs."""

    recipe: str
    stage: StageName
    parameters: dict[Part, int]
    trained: dict[Part, float]
    data: Expected
    basis: str
    steps: int
    samples: int
    flops: float
    flops_per_token: float
    zero: int
    gpus: int
    memory: dict[int, Memory]

    def gpu_days(self, mfu: float, peak: float) -> float:
        """Days of one GPU whose dense bf16 peak is `peak` FLOP/s, used to the share `mfu`."""
        return self.flops / (mfu * peak) / 86400

    def as_data(self) -> dict[str, Any]:
        memory = {f"zero_{z}": {**asdict(m), "total": m.total} for z, m in self.memory.items()}
        return {**asdict(self), "data": self.data.model_dump(), "memory": memory}


def sizes_of(recipe: Recipe) -> Sizes:
    """The sizes of a recipe's model, from its modules on the meta device. Raises `MvlError` when a tower's config is
    not known."""
    import torch

    from mvl_training.model import student_model

    text, seen = student_model.tower_configs(recipe)
    with torch.device("meta"):
        llava = student_model.LlavaOnevisionForConditionalGeneration(
            student_model.llava_config(recipe, text, seen, image=0, video=1)
        )
    return sizes_of_model(llava, recipe.grid.build())


def sizes_of_model(llava: Any, grid: TileGrid) -> Sizes:
    """The sizes of a model whose parameters are whole (not yet shared out by ZeRO-3)."""
    from mvl_training.model.student_model import part_of

    text, seen = llava.config.text_config, llava.config.vision_config
    parameters = dict.fromkeys(PARTS, 0)
    multiplied = dict.fromkeys(PARTS, 0)
    table = llava.get_input_embeddings().weight
    for name, parameter in llava.named_parameters():
        part = part_of(name) or "vision"
        parameters[part] += parameter.numel()
        # The word table is looked up, not multiplied with; tied to the head it is both.
        looked_up = parameter is table and not text.tie_word_embeddings
        if parameter.dim() >= 2 and not looked_up and "position_embedding" not in name:
            multiplied[part] += parameter.numel()
    return Sizes(
        parameters=parameters,
        multiplied=multiplied,
        head=llava.get_output_embeddings().weight.numel(),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=text.intermediate_size,
        vision_layers=seen.num_hidden_layers,
        vision_width=seen.hidden_size,
        patches=grid.side**2,
    )


def forecast(recipe: Recipe, name: StageName, sizes: Sizes, *, gpus: int, plan: PackPlan | None = None) -> Forecast:
    """The forecast of a stage on `gpus` GPUs over a pack plan, else over what the recipe expects. Raises `MvlError`."""
    stage = recipe.stage(name)
    data = stage.expected if plan is None else _data_of(plan)
    if data is None:
        raise MvlError(
            f"recipe {recipe.name} does not say what data {name} expects, and no pack plan is there",
            hint=f"materialise pack_plan/{name}, or give the stage `expected: {{samples: …, tokens: …, tiles: …}}`",
        )
    if plan is None:
        steps = stage.steps or stage.epochs * math.ceil(data.samples / stage.batch)
        samples = steps * stage.batch
        if stage.steps is None:  # the last step of an epoch may be smaller
            samples = min(samples, stage.epochs * data.samples)
    else:
        steps, samples = _length_of(Order.of(plan, stage.batch, recipe.seed), plan, stage)
    per_sample = flops_of_sample(sizes, stage, data.tokens, data.tiles)
    return Forecast(
        recipe=recipe.name,
        stage=name,
        parameters=sizes.parameters,
        trained=dict(stage.train),
        data=data,
        basis="assumed by the recipe" if plan is None else "the pack plan",
        steps=steps,
        samples=samples,
        flops=per_sample * samples,
        flops_per_token=per_sample / data.tokens,
        zero=stage.zero,
        gpus=gpus,
        memory={zero: _memory(sizes, stage, zero, gpus) for zero in (0, 1, 2, 3)},
    )


def _data_of(plan: PackPlan) -> Expected:
    samples = int(plan.n_samples.sum())
    return Expected(samples=samples, tokens=int(plan.n_tokens.sum()) / samples, tiles=int(plan.n_tiles.sum()) / samples)


def _length_of(order: Order, plan: PackPlan, stage: Stage) -> tuple[int, int]:
    """Steps, and the samples in them: a step takes whole packs, so it may hold more samples than the recipe's batch."""
    steps = stage.steps or stage.epochs * order.steps_per_epoch
    epochs, rest = divmod(steps, order.steps_per_epoch)
    last = [pack for step in range(steps - rest, steps) for pack in order.step(step)]
    return steps, epochs * int(plan.n_samples.sum()) + int(plan.n_samples[last].sum())


def flops_of_sample(sizes: Sizes, stage: Stage, tokens: float, tiles: float, targets: float | None = None) -> float:
    """Model FLOPs of one sample, forward and backward.

    Per parameter and token 2 forward, 4 more backward where the part learns, 2 more where only the activations'
    gradients pass through it to something that does. The head runs on the `targets` among the tokens; None, where they
    are not known, counts it on all.
    """
    learns_before = {"vision": False, "projector": "vision" in stage.train}
    learns_before["language"] = learns_before["projector"] or "projector" in stage.train
    factor = {part: 6 if part in stage.train else 4 if learns_before[part] else 2 for part in PARTS}
    attention = sizes.layers * sizes.width * tokens
    spared = 0.0 if targets is None else (tokens - targets) * sizes.head
    language = factor["language"] * (tokens * (sizes.multiplied["language"] + attention) - spared)
    patches = tiles * sizes.patches
    vision_attention = 2 * sizes.vision_layers * sizes.vision_width * sizes.patches
    return (
        language
        + factor["vision"] * patches * (sizes.multiplied["vision"] + vision_attention)
        + factor["projector"] * patches * sizes.multiplied["projector"]
    )


def _memory(sizes: Sizes, stage: Stage, zero: int, gpus: int) -> Memory:
    low = stage.precision == "bf16"
    everything = sum(sizes.parameters.values())
    learning = sum(sizes.parameters[part] for part in stage.train)
    shared = {level: gpus if zero >= level else 1 for level in (1, 2, 3)}
    # AdamW's two moments, and in bf16 the weights once more in fp32.
    optimizer = learning * (12 if low else 8) / shared[1] / GIB
    is_offloaded = stage.offload and zero > 0
    return Memory(
        weights=everything * (2 if low else 4) / shared[3] / GIB,
        gradients=learning * 4 / shared[2] / GIB,
        optimizer=0.0 if is_offloaded else optimizer,
        activations=_activations(sizes, stage, 2 if low else 4) / GIB,
        host=optimizer if is_offloaded else 0.0,
    )


def _activations(sizes: Sizes, stage: Stage, each: int) -> float:
    """Bytes kept for the backward pass of one full pack in the language tower, logits not counted."""
    layer = stage.length * (6 * sizes.width + 4 * sizes.inner) * each
    if stage.gradient_checkpointing:
        return sizes.layers * stage.length * sizes.width * each + layer
    return sizes.layers * layer
