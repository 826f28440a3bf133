"""Start-up and cost per task of the executors: processes of this machine, and Ray on it.

    python benchmarks/executors.py --json [--tasks 200] [--repetitions 3]

A task returns its number. Start-up is the time until a new process has its first result, from both kinds with two
workers; the cost per task is the time for `--tasks` more of them, divided by their number. Medians with minimum and
maximum; the executors take turns. Shards take minutes, so both matter for tests and small sources only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import islice
from typing import Any

from mvl_assets.config.profile import ExecutorConfig
from mvl_assets.execution.create import create_executor

KINDS = ("processes", "ray")
N_WORKERS = 2


def return_task(task: int) -> int:
    return task


def measure(kind: str, n_tasks: int) -> dict[str, float]:
    """Return the seconds of start-up and of a task, in this process."""
    started_at = time.monotonic()
    results = create_executor(ExecutorConfig(kind=kind, processes=N_WORKERS)).run(return_task, range(n_tasks + 1))
    next(results)
    first_at = time.monotonic()
    assert sum(1 for _ in islice(results, n_tasks)) == n_tasks
    return {"startup_s": first_at - started_at, "task_ms": 1000 * (time.monotonic() - first_at) / n_tasks}


def run_in_new_process(kind: str, n_tasks: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--kind", kind, "--tasks", str(n_tasks)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options.kind, options.tasks)))
        return
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, {options.tasks} tasks, {N_WORKERS} workers")
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.repetitions):
        for kind in KINDS:
            runs[kind].append(run_in_new_process(kind, options.tasks))
    report: dict[str, Any] = {}
    for kind in KINDS:
        for name in ("startup_s", "task_ms"):
            values = sorted(run[name] for run in runs[kind])
            report[f"{kind}_{name}"] = {"median": statistics.median(values), "min": values[0], "max": values[-1]}
            print(f"{kind} {name}: {statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})")
    if options.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
