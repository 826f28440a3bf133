"""How well a step uses its machine: achieved FLOP/s, the share of the peak, memory.

Belongs here: turning the packs and seconds of a step into those numbers. Does not: counting operations (`forecast`).
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Any

import torch

from mvl_training.data.pack_plan import PackPlan
from mvl_training.model.cost_model import Sizes, flops_of_sample
from mvl_training.recipe import Stage

PEAK_TFLOPS = {"H100": 989, "H200": 989, "H800": 989, "H20": 148, "GH200": 989, "B200": 2250, "A100": 312, "A800": 312}
"""Dense bf16, by a part of the device's name (NVIDIA's data sheets, SXM)."""


class Speed:
    """Of one rank of `world`, for a stage of a model of the given sizes."""

    def __init__(self, sizes: Sizes, stage: Stage, plan: PackPlan, world: int) -> None:
        self._sizes = sizes
        self._stage = stage
        self._plan = plan
        self._world = world
        self._peak = peak_tflops()

    def of(self, packs: Sequence[int], seconds: float) -> dict[str, Any]:
        """`tflops`: model TFLOP/s of one rank (the head on targets only, as the loop runs it; nothing for what gradient
        checkpointing computes again). `mfu`: its share of the device's peak, None where that is not known.
        `memory_gib`: the most this rank held."""
        members = list(packs)
        samples = int(self._plan.n_samples[members].sum())
        counted = (self._plan.n_tokens, self._plan.n_tiles, self._plan.n_targets)
        tokens, tiles, targets = (int(n[members].sum()) / samples for n in counted)
        flops = samples * flops_of_sample(self._sizes, self._stage, tokens, tiles, targets)
        tflops = flops / seconds / self._world / 1e12
        return {
            "tflops": tflops,
            "mfu": None if self._peak is None else tflops / self._peak,
            "memory_gib": _memory_gib(),
        }


def peak_tflops() -> float | None:
    """The device's dense bf16 peak, None for a CPU or a device that is not listed."""
    if not torch.cuda.is_available():
        return None
    words = torch.cuda.get_device_name().replace("-", " ").split()
    return next((float(PEAK_TFLOPS[word]) for word in words if word in PEAK_TFLOPS), None)


def _memory_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / (1 << 30)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
