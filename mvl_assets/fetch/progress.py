"""Progress of a fetch, as lines for a terminal or a log."""

from __future__ import annotations

import time
from collections.abc import Callable

LogFn = Callable[[str], object]
LOG_INTERVAL_S = 5.0


def log_nothing(line: str) -> None:
    """Ignore a line, for callers that want none."""


def format_bytes(n_bytes: float | None) -> str:
    """Return a number of bytes in decimal units (1 GB = 10^9 bytes)."""
    if n_bytes is None:
        return "unknown"
    for unit, unit_bytes in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= unit_bytes:
            return f"{n_bytes / unit_bytes:.1f} {unit}"
    return f"{n_bytes:.0f} B"


class TransferMeter:
    """Counts the bytes of one source's fetch and logs them every few seconds. `total_bytes` None: unknown total."""

    def __init__(self, source: str, total_bytes: int | None, log: LogFn, *, interval_s: float = LOG_INTERVAL_S) -> None:
        self.source, self.total_bytes, self.transferred_bytes = source, total_bytes, 0
        self._log, self._interval_s = log, interval_s
        self._started_at = self._logged_at = time.monotonic()

    def extend_total(self, n_bytes: int) -> None:
        """Add `n_bytes` to the total: bytes that had arrived and must be transferred once more."""
        self.total_bytes = None if self.total_bytes is None else self.total_bytes + n_bytes

    def add(self, n_bytes: int) -> None:
        """Count `n_bytes` more bytes."""
        self.transferred_bytes += n_bytes
        now = time.monotonic()
        if now - self._logged_at >= self._interval_s:
            self._logged_at = now
            self._log(self.format_line())

    def format_line(self) -> str:
        """Return the progress as one line."""
        elapsed_s = max(time.monotonic() - self._started_at, 1e-9)
        bytes_per_s = self.transferred_bytes / elapsed_s
        eta_suffix = ""
        if self.total_bytes is not None and bytes_per_s > 0:
            eta_suffix = f", {_format_duration(max(0, self.total_bytes - self.transferred_bytes) / bytes_per_s)} left"
        total_suffix = f" of {format_bytes(self.total_bytes)}" if self.total_bytes is not None else ""
        transferred = f"{format_bytes(self.transferred_bytes)}{total_suffix}"
        return f"{self.source}: {transferred}, {bytes_per_s / 1e6:.1f} MB/s{eta_suffix}"


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
