"""Supervises one local model server: starts it, ends it when it is idle, and leaves no process of it behind.

`python -m mvl_assets.inference.local_server.supervisor FOLDER PORT IDLE_TIMEOUT_S COMMAND...` runs as the leader of its
own process group, so it outlives the run that started it. The server is idle when FOLDER/heartbeat has not been touched
for that long. Runs touch it; for clients that know nothing but the address the supervisor does, as long as the
server's own metrics count requests. Imports little: it stays for hours.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

HEARTBEAT_FILE = "heartbeat"
POLL_INTERVAL_S = 1.0
GRACE_PERIOD_S = 10.0
RUNNING, WAITING, FINISHED = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:request_success_total"
# How often the server is asked for its requests before it counts as idle, and how long it may take to answer.
N_ASKS_PER_IDLE_TIMEOUT = 10
ASK_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


def supervise(folder: Path, port: int, idle_timeout_s: float, command: list[str]) -> NoReturn:
    """Run `command` until it ends, is idle for too long, or SIGTERM arrives; then end the whole process group."""
    heartbeat_file = folder / HEARTBEAT_FILE
    counted_at = time.monotonic()
    n_finished_before = 0.0
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_set_parent_death_signal)
    while server.poll() is None and not stopping:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(POLL_INTERVAL_S)
        if time.monotonic() - counted_at > idle_timeout_s / N_ASKS_PER_IDLE_TIMEOUT:
            counted_at = time.monotonic()
            n_open, n_finished = _count_requests(port)
            if n_open or n_finished > n_finished_before:
                # Not `touch`, which would make the file anew in a folder that was emptied.
                with contextlib.suppress(FileNotFoundError):
                    os.utime(heartbeat_file)
            n_finished_before = max(n_finished, n_finished_before)
        stopping = stopping or time.time() - _read_heartbeat(heartbeat_file) > idle_timeout_s
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_PERIOD_S)
    _kill_process_group()


def _read_heartbeat(heartbeat_file: Path) -> float:
    try:
        return heartbeat_file.stat().st_mtime
    except FileNotFoundError:
        # The folder was removed: no client can find this server any more.
        return 0.0


def _count_requests(port: int) -> tuple[float, float]:
    """Return how many requests run or wait, and how many have finished; none where the server does not say.

    From vLLM's Prometheus text; questions about health, models and metrics are not counted there.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_TIMEOUT_S)
    counts = {RUNNING: 0.0, WAITING: 0.0, FINISHED: 0.0}
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(connection):
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            name_and_labels, _, value = line.rpartition(" ")
            name = name_and_labels.partition("{")[0]
            if name in counts:
                counts[name] += float(value)
    return counts[RUNNING] + counts[WAITING], counts[FINISHED]


def _kill_process_group() -> NoReturn:
    """End what the server has left running (its engine is a process of its own), this process last."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable")


def _set_parent_death_signal() -> None:
    """Have the kernel send SIGTERM to the server when the supervisor itself is killed (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
