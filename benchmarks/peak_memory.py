"""Peak memory of a benchmark's process. Standard library only, so that importing it costs no memory."""

from __future__ import annotations

from pathlib import Path


def read_peak_rss_mb() -> float:
    """Return the peak of this process in MB; `ru_maxrss` would start with the size of the parent process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
