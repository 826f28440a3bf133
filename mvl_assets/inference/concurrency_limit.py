"""How many requests an endpoint may hold at once: as many as still make it faster, fewer when it refuses them.

A server's best number cannot be known beforehand, and it moves with the length of the questions. What is known is what
comes back, so three signals are used. *The queue*: a server that says how many requests wait there (vLLM does) gets
more as long as none do, and fewer when many do. *Throughput*: any other gets more only while that brings more answers
per second; once it does not, the requests merely wait in the server, and latency is all that grows. *Refusals*: 429,
503, lost connections and time-outs halve the limit when they are more than a few in a hundred.

Belongs here: the number. What a refused request does next is `engine.py`.
"""

from __future__ import annotations

import math

# A refusal moves the share of refusals by this much; a share above BEARABLE is stress and not chance.
WEIGHT = 1 / 64
BEARABLE = 0.15
# Of twice as many requests in flight this share must come back as answers per second; less is not worth it.
WORTH = 0.3
STEP = 1.5
# After a cut the limit grows by one per round up to this share of what it was.
REGAIN = 0.75
# Rounds (of as many answers as the limit is high) before another step is tried, and how many it is tried for.
HOLD_ROUNDS, LONGEST_HOLD = 8, 64
TRIAL_ROUNDS = 8


class Limit:
    """Starts low, doubles per round while that helps, then tries a step up now and then. Times are of one clock."""

    def __init__(self, start: int, maximum: int) -> None:
        self.maximum = max(1, maximum)
        self.start = min(max(1, start), self.maximum)
        self._answers, self._until, self._held, self._took_s = 0, 0, 0, 0.0
        self.restart(-math.inf)

    def restart(self, now: float) -> None:
        """After an outage: from the start again."""
        self._value = float(self.start)
        self._climbing = True
        self._flat_rounds = 0
        # Where to go back to when growing turns out to be of no use; the limit as the present round began.
        self._before: float = self._value
        self._began: float = self._value
        # Answers per second, and requests in flight, that growing is compared with.
        self._rate, self._at = 0.0, 1.0
        self._trying = False
        self._regain = 0.0
        self._room: bool | None = None  # as the server's queue has it; None: it has not said
        self._hold = HOLD_ROUNDS
        self._refused = 0.0
        self._cut_at = now
        self._forget_round()

    @property
    def value(self) -> int:
        return int(self._value)

    # -- answers ---------------------------------------------------------------------------------------------------

    def succeeded(self, in_flight: int, in_flight_then: int, latency_s: float) -> None:
        """How many were in flight when the answer came and when its request was sent, itself included.

        An unused limit says nothing about the server.
        """
        self._refused -= self._refused * WEIGHT
        if in_flight * 2 < self._value:
            self._forget_round()
            return
        if self._climbing:
            self._value = min(float(self.maximum), self._value + 1.0)
        elif self._room or self._value < self._regain:
            self._value = min(float(self.maximum), self._value + 1.0 / self._value)
        if self._room is not None or in_flight_then > self._value:  # asked for under a higher limit
            return
        if not self._answers:
            self._until = self._rounds() * max(4, int(self._value))
        self._answers += 1
        self._held += in_flight_then
        self._took_s += latency_s
        if self._answers >= self._until:
            # Answers per second by Little's law: counted on the clock they would depend on how bursts fall into rounds.
            rate, held = self._held / max(self._took_s, 1e-9), self._held / self._answers
            self._forget_round()
            self._climb(rate, held) if self._climbing else self._try(rate, held)

    def _rounds(self) -> int:
        if self._climbing:
            return 1
        return TRIAL_ROUNDS if self._trying else self._hold

    def _forget_round(self) -> None:
        self._answers, self._until, self._held, self._took_s = 0, 0, 0, 0.0

    def _climb(self, rate: float, held: float) -> None:
        if self._is_worth(rate, held):
            # These answers were asked for in the round before: its limit is what they speak for.
            self._before, self._began = self._began, self._value
            self._rate, self._at, self._flat_rounds = rate, held, 0
            return
        self._flat_rounds += 1
        if self._flat_rounds == 2:
            self._settle(self._before)

    def _try(self, rate: float, held: float) -> None:
        if not self._trying:
            self._rate, self._at, self._before = rate, held, self._value
            self._value = min(float(self.maximum), max(self._value + 1, self._value * STEP))
            self._trying = self._value > self._before
        elif self._is_worth(rate, held):
            self._hold = HOLD_ROUNDS
            self._settle(self._value)
        else:
            self._hold = min(2 * self._hold, LONGEST_HOLD)
            self._settle(self._before)

    def _is_worth(self, rate: float, held: float) -> bool:
        return rate >= self._rate * (1 + WORTH * (held / self._at - 1))

    def _settle(self, value: float) -> None:
        self._value = max(1.0, value)
        self._climbing = self._trying = False
        self._forget_round()

    # -- trouble ---------------------------------------------------------------------------------------------------

    def stressed(self, sent_at: float, now: float) -> bool:
        """A request was refused or lost. Returns whether that was one too many, and the limit has been cut.

        A burst cuts once: only requests sent after the last cut can cause another.
        """
        if sent_at < self._cut_at:
            return False
        self._refused += (1 - self._refused) * WEIGHT
        if self._refused < BEARABLE:
            return False
        # A step that met refusals was one too far; otherwise the server can bear less than it did.
        if self._trying:
            self._settle(self._before)
        else:
            self._regain = REGAIN * self._value
            self._settle(self._value / 2)
        self._refused = 0.0
        self._cut_at = now
        return True

    def waiting(self, requests: int) -> None:
        """So many requests wait inside the server, whoever sent them: those are of no use there."""
        too_many = requests - max(2.0, self._value / 8)
        self._room = too_many <= 0
        if not self._room:
            # A part of them at a time: other clients see the same queue.
            self._settle(self._value - min(too_many, self._value) / 4)
