"""How long requests take at an endpoint, learned from its replies: when one is late, and when it is given up.

A constant time-out is either too short for a busy server or so long that a few requests that hang hold every place.
So there are two. A request that is *late* keeps its connection and loses its place: another may go beside it. One that
takes twice what the longest possible answer would is *given up*, and asked again with twice the time, up to the run's
own limit.

Belongs here: two durations. Who counts as late is `endpoint_client.py`, what follows from a time-out `engine.py`.
"""

from __future__ import annotations

# Replies before anything is concluded from them, and how fast a slow one is forgotten.
MIN_SAMPLES = 16
DECAY = 0.99
STRAGGLER_FACTOR = 3.0
TIMEOUT_FACTOR = 2.0
MIN_TIMEOUT_S = 5.0


class LatencyTracker:
    """The slowest of the latest replies; all times in seconds."""

    def __init__(self) -> None:
        self._n_samples = 0
        self._slowest_s = 0.0
        self._slowest_full_length_s = 0.0

    def observe(self, latency_s: float, completion_tokens: int, max_tokens: int) -> None:
        """An answer of `completion_tokens` came after `latency_s`; it might have had `max_tokens`."""
        self._n_samples += 1
        self._slowest_s = max(latency_s, DECAY * self._slowest_s)
        full_length_s = latency_s * max(1.0, max_tokens / max(1, completion_tokens))
        self._slowest_full_length_s = max(full_length_s, DECAY * self._slowest_full_length_s)

    @property
    def straggler_after_s(self) -> float | None:
        """After this time a request counts as late; None as long as too little is known."""
        return STRAGGLER_FACTOR * self._slowest_s if self._n_samples >= MIN_SAMPLES else None

    def compute_timeout_s(self, max_timeout_s: float, client_timeouts: int) -> float:
        """How long to wait for one request, at most `max_timeout_s`."""
        if self._n_samples < MIN_SAMPLES:
            return max_timeout_s
        observed_timeout_s = max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * self._slowest_full_length_s)
        return min(max_timeout_s, observed_timeout_s * 2**client_timeouts)
