"""Latency of an endpoint, learned from its replies: decides when a request is late and when it is given up.

A constant time-out is either too short for a busy server, or so long that a few hanging requests use up the whole
limit. So there are two. A straggler keeps its connection and no longer counts against the limit: another request may be
sent. A request that takes twice as long as the longest possible answer would is given up, and sent again with twice the
time, up to the run's own limit.
"""

from __future__ import annotations

# Replies before anything is concluded from them, and how fast a slow one is forgotten (per reply).
MIN_SAMPLES = 16
DECAY = 0.99
STRAGGLER_FACTOR = 3.0
TIMEOUT_FACTOR = 2.0
MIN_TIMEOUT_S = 5.0


class LatencyTracker:
    """Tracks the slowest of the latest replies, with decay. All times are in seconds."""

    def __init__(self) -> None:
        self._n_samples = 0
        self._slowest_s = 0.0
        self._slowest_full_length_s = 0.0

    def observe(self, latency_s: float, completion_tokens: int, max_tokens: int) -> None:
        """Record that an answer of `completion_tokens`, of at most `max_tokens`, came after `latency_s`."""
        self._n_samples += 1
        self._slowest_s = max(latency_s, DECAY * self._slowest_s)
        full_length_s = latency_s * max(1.0, max_tokens / max(1, completion_tokens))
        self._slowest_full_length_s = max(full_length_s, DECAY * self._slowest_full_length_s)

    @property
    def straggler_after_s(self) -> float | None:
        """Age at which a request counts as a straggler; None as long as too little is known."""
        return STRAGGLER_FACTOR * self._slowest_s if self._n_samples >= MIN_SAMPLES else None

    def compute_timeout_s(self, max_timeout_s: float, client_timeouts: int) -> float:
        """Return how long to wait for a request that was given up `client_timeouts` times, at most `max_timeout_s`."""
        if self._n_samples < MIN_SAMPLES:
            return max_timeout_s
        observed_timeout_s = max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * self._slowest_full_length_s)
        return min(max_timeout_s, observed_timeout_s * 2**client_timeouts)
