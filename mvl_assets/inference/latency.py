"""How long requests take at an endpoint, learned from its replies: when one is late, and when it is given up.

A constant time-out is either too short for a busy server or so long that a few requests that hang hold every place.
So there are two. A request that is *late* keeps its connection and loses its place: another may go beside it. One that
takes twice what the longest possible answer would is *given up*, and asked again with twice the time, up to the run's
own limit.

Belongs here: two durations. Who counts as late is `lane.py`, what follows from a time-out `engine.py`.
"""

from __future__ import annotations

# Replies before anything is concluded from them, and how fast a slow one is forgotten.
ENOUGH = 16
KEPT = 0.99
LATE_TIMES = 3.0
GIVEN_UP_TIMES = 2.0
SHORTEST_TIMEOUT_S = 5.0


class Pace:
    """The slowest of the latest replies; all times in seconds."""

    def __init__(self) -> None:
        self._replies = 0
        self._slowest = 0.0
        self._slowest_whole = 0.0

    def replied(self, latency_s: float, tokens: int, max_tokens: int) -> None:
        """An answer of `tokens` came after `latency_s`; it might have had `max_tokens`."""
        self._replies += 1
        self._slowest = max(latency_s, KEPT * self._slowest)
        whole = latency_s * max(1.0, max_tokens / max(1, tokens))
        self._slowest_whole = max(whole, KEPT * self._slowest_whole)

    @property
    def late_s(self) -> float | None:
        """After this time a request counts as late; None as long as too little is known."""
        return LATE_TIMES * self._slowest if self._replies >= ENOUGH else None

    def timeout_s(self, longest_s: float, given_up_before: int) -> float:
        """How long to wait for one request, at most `longest_s`."""
        if self._replies < ENOUGH:
            return longest_s
        learned = max(SHORTEST_TIMEOUT_S, GIVEN_UP_TIMES * self._slowest_whole)
        return min(longest_s, learned * 2**given_up_before)
