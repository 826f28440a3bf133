"""How many requests an endpoint may hold at once: additive increase, multiplicative decrease."""

from __future__ import annotations

import math


class AimdLimit:
    """Starts low, doubles per round trip until the first stress, then grows by one per round trip; halves on stress.

    Stress is a 429, a 5xx, a lost connection or a time-out. A burst of them counts once: only a request sent after the
    last cut can cause another.
    """

    def __init__(self, start: int, maximum: int) -> None:
        self.maximum = max(1, maximum)
        self.start = min(max(1, start), self.maximum)
        self._value = float(self.start)
        self._climbing = True
        self._cut_at = -math.inf

    @property
    def value(self) -> int:
        return int(self._value)

    def succeeded(self, in_flight: int) -> None:
        """`in_flight` counts the request that just succeeded. An unused limit says nothing about the server."""
        if in_flight * 2 < self._value:
            return
        step = 1.0 if self._climbing else 1.0 / self._value
        self._value = min(float(self.maximum), self._value + step)

    def stressed(self, sent_at: float, now: float) -> None:
        if sent_at < self._cut_at:
            return
        self._value = max(1.0, self._value / 2)
        self._climbing = False
        self._cut_at = now

    def restart(self, now: float) -> None:
        """After an outage: from the start again."""
        self._value = float(self.start)
        self._climbing = True
        self._cut_at = now
