"""What the parts share: sizes, seed and how repeated measurements are summed up."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mvl_assets.common.training_stages import TrainingStage

SEED = 20241206
STAGE: TrainingStage = "single_image"


@dataclass(frozen=True, slots=True)
class BenchmarkSize:
    """Numbers of samples, rows, steps and repetitions to measure."""

    n_samples: int
    n_rows: int
    n_steps: int
    repetitions: int


FULL_SIZE = BenchmarkSize(n_samples=1_000_000, n_rows=2400, n_steps=10, repetitions=3)
QUICK_SIZE = BenchmarkSize(n_samples=20_000, n_rows=80, n_steps=5, repetitions=1)


def iter_chunks(values: list[Any], chunk_size: int) -> Iterator[list[Any]]:
    return (values[start : start + chunk_size] for start in range(0, len(values), chunk_size))


def summarize_values(values: list[float]) -> dict[str, Any]:
    """Return median, extremes and number of repetitions."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "repetitions": len(values),
    }
