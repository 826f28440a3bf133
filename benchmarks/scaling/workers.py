"""Work in a process of its own: its CPU time and peak memory with all its children, and results that survive a kill.

CPU time counts from the moment at which the worker has imported what it needs; memory is the largest high-water mark
of any process of the worker's, read while they run.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SCRIPT_PATH = Path(__file__).resolve().parents[1] / "scale.py"
SAMPLE_INTERVAL_S = 0.2
SAVE_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker and its children have used so far."""

    cpu_s: float
    peak_mb: float


class WorkerError(RuntimeError):
    """A worker that did not end well."""


def read_own_cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def start_worker(part: str, arguments: Mapping[str, Any], env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start a process that runs a part of the benchmark; the last line it prints is its result."""
    command = [sys.executable, str(SCRIPT_PATH), "--worker", part, json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})


def read_result(worker: subprocess.Popen) -> dict[str, Any]:
    """Wait for the end of a worker and return its result. Raises `WorkerError`."""
    output, _ = worker.communicate()
    if worker.returncode or not output.strip():
        raise WorkerError(f"a worker ended with {worker.returncode}")
    return json.loads(output.splitlines()[-1])


def run_worker(
    part: str,
    arguments: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    on_usage: Callable[[Usage], None] | None = None,
) -> dict[str, Any]:
    """Run a part in a worker and return its result with `cpu_s`, `wall_s`, `peak_mb` and `tree_mb`.

    `peak_mb` is the peak of the largest process, `tree_mb` of all together, as far as the samples show it.
    `on_usage` is called every few seconds with what the worker has used so far.
    """
    worker = start_worker(part, arguments, env)
    peaks: dict[int, float] = {}
    tree_mb = 0.0
    next_save = time.monotonic() + SAVE_INTERVAL_S
    while worker.poll() is None:
        cpu_s, rss_mb = _sample_processes(worker.pid, peaks)
        tree_mb = max(tree_mb, rss_mb)
        if on_usage is not None and time.monotonic() >= next_save:
            next_save = time.monotonic() + SAVE_INTERVAL_S
            on_usage(Usage(cpu_s, max(peaks.values(), default=0.0)))
        time.sleep(SAMPLE_INTERVAL_S)
    result = read_result(worker)
    # The worker reads its own mark at its end, which the samples may have missed.
    result["peak_mb"] = round(max(result["peak_mb"], *peaks.values(), 0.0), 1)
    result["tree_mb"] = round(max(tree_mb, result["peak_mb"]), 1)
    return result


def measure_part(run: Callable[..., dict[str, Any]], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run a part in this process, the worker, and add `cpu_s`, `wall_s` and `peak_mb` to its result."""
    cpu_start, started_at = read_own_cpu_s(), time.monotonic()
    result = run(**arguments)
    return {
        "cpu_s": round(read_own_cpu_s() - cpu_start, 3),
        "wall_s": round(time.monotonic() - started_at, 3),
        "peak_mb": round(read_high_water_mark_mb(os.getpid()) or 0.0, 1),
        **result,
    }


def _sample_processes(pid: int, peaks: dict[int, float]) -> tuple[float, float]:
    """Update the peak of every process of the tree; return the CPU seconds and the memory in MB of all of them."""
    cpu_s = rss_mb = 0.0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return cpu_s, rss_mb
    for process in processes:
        try:
            times = process.cpu_times()
            rss_mb += process.memory_info().rss / (1 << 20)
        except psutil.Error:
            continue
        cpu_s += times.user + times.system + times.children_user + times.children_system
        peaks[process.pid] = max(peaks.get(process.pid, 0.0), read_high_water_mark_mb(process.pid) or 0.0)
    return cpu_s, rss_mb


def read_high_water_mark_mb(pid: int) -> float | None:
    """Return the peak resident memory of a process; `ru_maxrss` would start with the size of its parent."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return int(status.split("VmHWM:")[1].split()[0]) / 1024 if "VmHWM:" in status else None


def read_code_version() -> str:
    """Return the abbreviated commit of this checkout."""
    command = ["git", "-C", str(SCRIPT_PATH.parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


class StateFile:
    """Results by key, one JSON line each, and what an unfinished attempt has used, so that a killed run goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._attempt_path = path.with_suffix(".attempt.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.results: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # the line that a kill cut off
                continue
            self.results[entry.pop("key")] = entry

    def run(
        self, key: str, part: str, arguments: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the stored result of a part, or else run it in a worker and store its result.

        What attempts that were killed have used counts, too; `attempts` says how many there were.
        """
        if key in self.results:
            return self.results[key]
        earlier = self._read_attempt(key)

        def save_attempt(usage: Usage) -> None:
            self._attempt_path.write_text(
                json.dumps(
                    {
                        "key": key,
                        "cpu_s": earlier["cpu_s"] + usage.cpu_s,
                        "peak_mb": max(earlier["peak_mb"], usage.peak_mb),
                        "attempts": earlier["attempts"] + 1,
                    }
                ),
                encoding="utf-8",
            )

        result = run_worker(part, arguments, env, save_attempt)
        result["cpu_s"] = round(result["cpu_s"] + earlier["cpu_s"], 3)
        result["peak_mb"] = max(result["peak_mb"], earlier["peak_mb"])
        result["attempts"] = earlier["attempts"] + 1
        result |= {"load": round(os.getloadavg()[0], 1), "code": read_code_version()}
        self.put(key, result)
        self._attempt_path.unlink(missing_ok=True)
        return result

    def put(self, key: str, result: dict[str, Any]) -> None:
        """Store a result durably."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" if file.tell() and not self._ends_with_newline() else "")
            file.write(json.dumps({"key": key, **result}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.results[key] = result

    def _ends_with_newline(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read_attempt(self, key: str) -> dict[str, Any]:
        none = {"cpu_s": 0.0, "peak_mb": 0.0, "attempts": 0}
        try:
            attempt = json.loads(self._attempt_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return none
        return attempt if attempt.get("key") == key else none
