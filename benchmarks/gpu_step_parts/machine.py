"""The machine: its ceilings, its clock, its memory, its packages."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

from gpu_step_parts.common import Ceilings
from mvl_training.model.cost_model import PEAK_TFLOPS_BY_DEVICE
from mvl_training.trainer.mfu import get_peak_tflops

PACKAGES = ("torch", "transformers", "deepspeed", "pylance", "pyarrow", "tokenizers", "numpy", "pillow")


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> tuple[Ceilings, float]:
    """Return FLOP/s, and the GB per second of a copy (read and written). A CPU gets the peak of an H100.

    Raises SystemExit for a device whose peak is unknown.
    """
    is_cpu = device.type == "cpu"
    peak_tflops = PEAK_TFLOPS_BY_DEVICE["H100"] if is_cpu else get_peak_tflops()
    if peak_tflops is None:
        raise SystemExit(
            f"the bf16 peak of {torch.cuda.get_device_name()} is unknown; add it to PEAK_TFLOPS_BY_DEVICE in"
            " mvl_training/model/cost_model.py"
        )
    side, n_bytes = (256, 1 << 20) if is_cpu else (8192, 1 << 30)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    matmul_s = time_calls(lambda: torch.mm(a, b), device)
    copy_s = time_calls(lambda: target.copy_(source), device)
    return Ceilings(peak_tflops * 1e12, 2 * side**3 / matmul_s), 2 * n_bytes / copy_s / 1e9


def time_calls(call: Callable[[], object], device: torch.device, n_calls: int = 10) -> float:
    """Return the seconds of one call: the median of five series after one to warm up."""
    call_times = []
    for _ in range(6):
        started_at = read_synchronized_clock(device)
        for _ in range(n_calls):
            call()
        call_times.append((read_synchronized_clock(device) - started_at) / n_calls)
    return statistics.median(call_times[1:])


def read_synchronized_clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_memory(device: torch.device) -> None:
    """Return unused memory to the device, and count its peak anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def read_peak_memory_gib(device: torch.device) -> float:
    return round(torch.cuda.max_memory_allocated() / (1 << 30), 2) if device.type == "cuda" else 0.0


def iter_package_versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            yield package, version(package)
