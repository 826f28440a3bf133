"""Hardware use of a step: achieved FLOP/s, model FLOPs utilisation (MFU), peak memory."""

from __future__ import annotations

import resource
from typing import Any

import torch

from mvl_training.data.pack_plan import SampleCounts
from mvl_training.model.cost_model import PEAK_TFLOPS_BY_DEVICE, ModelSizes, build_sample_flops
from mvl_training.recipe import StageConfig


class ThroughputMeter:
    """Measures the steps of one rank.

    Args:
        sizes: Sizes of the model.
        stage_config: Settings of the stage.
        world_size: Number of ranks.
    """

    def __init__(self, sizes: ModelSizes, stage_config: StageConfig, world_size: int) -> None:
        self._compute_flops = build_sample_flops(sizes, stage_config)
        self._world_size = world_size
        self._peak_tflops = get_peak_tflops()

    def measure(self, counts: SampleCounts, step_time_s: float) -> dict[str, Any]:
        """Return the numbers of a step.

        Args:
            counts: Counts of the step's samples, over all ranks.
            step_time_s: Seconds that the step took.

        Returns:
            `tflops`: model TFLOP/s of one rank (the head on loss tokens only, as the loop runs it; recomputation by
            gradient checkpointing does not count). `mfu`: its share of the device's peak, None if that is unknown.
            `peak_memory_gib`: peak memory of this rank so far. `alloc_retries`: how often CUDA's allocator had to free
            its cache to find memory so far; each stops the device, so they should not grow.
        """
        tflops = float(self._compute_flops(counts).sum()) / step_time_s / self._world_size / 1e12
        return {
            "tflops": tflops,
            "mfu": None if self._peak_tflops is None else tflops / self._peak_tflops,
            "peak_memory_gib": _read_peak_memory_gib(),
            "alloc_retries": torch.cuda.memory_stats()["num_alloc_retries"] if torch.cuda.is_available() else 0,
        }


def get_peak_tflops() -> float | None:
    """Return the dense bf16 peak of the device in TFLOP/s; None for a CPU or an unlisted device."""
    if not torch.cuda.is_available():
        return None
    name_parts = torch.cuda.get_device_name().replace("-", " ").split()
    return next(
        (float(PEAK_TFLOPS_BY_DEVICE[name_part]) for name_part in name_parts if name_part in PEAK_TFLOPS_BY_DEVICE),
        None,
    )


def _read_peak_memory_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / (1 << 30)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
