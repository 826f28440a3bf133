"""Who holds a lease, so that others on the same machine know at once that a holder is dead and need not wait."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any


def describe_holder() -> dict[str, Any]:
    """Return what identifies this process, as JSON can hold it.

    Process ids repeat, in containers and after a reboot, so the machine's boot, the namespace of process ids and the
    start of the process belong to it.
    """
    return {
        "name": f"{socket.gethostname()}:{os.getpid()}",
        "machine": _read_machine(),
        "start": _read_start(os.getpid()),
    }


def is_known_dead(holder: dict[str, Any]) -> bool:
    """Return whether a holder was a process here that has ended; False if that cannot be known from here."""
    machine = _read_machine()
    if not machine or holder.get("machine") != machine:
        return False
    pid = int(str(holder["name"]).rpartition(":")[2])
    return _read_start(pid) != holder.get("start")


def _read_machine() -> str:
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot_id} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _read_start(pid: int) -> str:
    """Return when a process started, in ticks since the boot; empty for one that does not exist."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in ("Z", "X") else fields[18]
