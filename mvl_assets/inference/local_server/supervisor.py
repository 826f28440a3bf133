"""Supervises one local model server: starts it, ends it when it is idle, and leaves no process of it behind.

`python -m mvl_assets.inference.local_server.supervisor FOLDER IDLE_TIMEOUT_S COMMAND...` runs as the leader of its own
process group, so it outlives the run that started it. The server is idle when FOLDER/heartbeat has not been touched for
that long. Imports little: it stays for hours.
"""

from __future__ import annotations

import contextlib
import ctypes
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
_PR_SET_PDEATHSIG = 1


def supervise(folder: Path, idle_timeout_s: float, command: list[str]) -> NoReturn:
    """Run `command` until it ends, is idle for too long, or SIGTERM arrives; then end the whole process group."""
    heartbeat_file = folder / HEARTBEAT_FILE
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
    supervise(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
