"""What the parts share: how much is measured, and the rate of steps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunSize:
    """How much is measured.

    `pack_tokens` has the length of packs by name. A step has as many samples as a rank of eight has of the recipe's.
    """

    tiny: bool
    max_seq_len: int
    pack_tokens: dict[str, int]
    samples_per_step: int
    n_steps: int
    n_warmup_steps: int = 1

    @property
    def n_rows(self) -> int:
        """Samples of all steps of a length."""
        return self.samples_per_step * (self.n_warmup_steps + self.n_steps)


def choose_run_size(*, tiny: bool, n_steps: int) -> RunSize:
    if tiny:
        return RunSize(tiny, 512, {"8k": 512, "16k": 1024}, 8, n_steps)
    return RunSize(tiny, 8192, {"8k": 8192, "16k": 16384}, 32, n_steps)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """FLOP/s of the device: its peak by the data sheet, and those of one large matrix product."""

    peak_flops: float
    gemm_flops: float


@dataclass(frozen=True, slots=True)
class StepWork:
    """What a step, or a pack, took and held."""

    seconds: float
    flops: float
    n_loss_tokens: int
    n_tokens: int
    n_samples: int


def summarize_steps(steps: Sequence[StepWork], ceilings: Ceilings) -> dict[str, Any]:
    """Return rates over all steps together, and the spread of FLOP/s: steps differ in work."""
    seconds = sum(step.seconds for step in steps)
    mean_flops_per_s = sum(step.flops for step in steps) / seconds
    tflops = [step.flops / step.seconds / 1e12 for step in steps]
    return {
        "tflops": {
            name: round(choose(tflops), 5)
            for name, choose in (("median", statistics.median), ("min", min), ("max", max))
        },
        "mfu": round(mean_flops_per_s / ceilings.peak_flops, 4),
        "share_of_gemm": round(mean_flops_per_s / ceilings.gemm_flops, 4),
        "seconds": round(seconds / len(steps), 4),
        "loss_tokens_per_s": round(sum(step.n_loss_tokens for step in steps) / seconds, 3),
        "tokens_per_s": round(sum(step.n_tokens for step in steps) / seconds, 3),
        "samples_per_s": round(sum(step.n_samples for step in steps) / seconds, 3),
        "repetitions": len(steps),
    }
