"""How far a fetch is, as lines for a terminal or a log."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], object]
EVERY_S = 5.0


def quiet(line: str) -> None:
    """For callers that want no lines."""


def size_text(count: float | None) -> str:
    """A number of bytes in the units in which disks and repositories are sold (1 GB = 10^9 bytes)."""
    if count is None:
        return "unknown"
    for unit, power in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:.1f} {unit}"
    return f"{count:.0f} B"


class Meter:
    """Counts the bytes of one source's fetch and says so every few seconds. `total` None is an unknown total."""

    def __init__(self, source: str, total: int | None, say: Say, *, every: float = EVERY_S) -> None:
        self.source, self.total, self.arrived = source, total, 0
        self._say, self._every = say, every
        self._begun = self._said = time.monotonic()

    def begin_again(self, count: int) -> None:
        """Tells that `count` bytes which were here have to be carried once more."""
        self.total = None if self.total is None else self.total + count

    def add(self, count: int) -> None:
        """Tells that `count` more bytes are here."""
        self.arrived += count
        now = time.monotonic()
        if now - self._said >= self._every:
            self._said = now
            self._say(self.line())

    def line(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        rate = self.arrived / seconds
        left = ""
        if self.total is not None and rate > 0:
            left = f", {_time_text(max(0, self.total - self.arrived) / rate)} left"
        of = f" of {size_text(self.total)}" if self.total is not None else ""
        return f"{self.source}: {size_text(self.arrived)}{of}, {rate / 1e6:.1f} MB/s{left}"


def _time_text(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
