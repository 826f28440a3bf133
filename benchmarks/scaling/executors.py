"""What an executor adds to the work: its start-up, and the overhead of each shard."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

from mvl_assets.config.profile import ExecutorConfig
from mvl_assets.execution.create import create_executor
from mvl_assets.execution.ray_cluster import is_ray_installed
from scaling.workers import StateFile

N_PROCESSES = 2
N_SHARDS = 200
REPETITIONS = 3
Kind = Literal["processes", "ray"]


def run_executors(state: StateFile) -> dict[str, dict[str, float]]:
    """Measure each executor that is installed, in workers of their own, interleaved; return the medians by kind."""
    kinds: Sequence[Kind] = ("processes", "ray") if is_ray_installed() else ("processes",)
    for repetition in range(REPETITIONS):
        for kind in kinds:
            state.run(f"executor/{kind}/{repetition}", "executor", {"kind": kind})
    medians = {}
    for kind in kinds:
        runs = [state.results[f"executor/{kind}/{repetition}"] for repetition in range(REPETITIONS)]
        medians[kind] = {
            name: round(statistics.median(run[name] for run in runs), 3)
            for name in ("start_up_s", "ms_per_shard", "wall_s", "tree_mb", "peak_mb")
        }
        print(f"executor {kind}: {medians[kind]}", file=sys.stderr)
    return medians


def measure_executor(kind: Kind) -> dict[str, Any]:
    """Run shards that do nothing: time until the first result, and from there per shard; called in a worker."""
    executor = create_executor(ExecutorConfig(kind=kind, processes=N_PROCESSES))
    started_at = time.perf_counter()
    result_times = [time.perf_counter() - started_at for _ in executor.run(skip_shard, range(N_SHARDS))]
    return {
        "rows": N_SHARDS,
        "start_up_s": round(result_times[0], 3),
        "ms_per_shard": round(1000 * (result_times[-1] - result_times[0]) / (N_SHARDS - 1), 3),
    }


def skip_shard(shard: int) -> int:
    """Return the shard's number: all that is left is what the executor does."""
    return shard
