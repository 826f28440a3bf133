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
REJECT_RATE_SMOOTHING = 1 / 64
MAX_REJECT_RATE = 0.15
# Of twice as many requests in flight this share must come back as answers per second; less is not worth it.
MIN_GAIN = 0.3
PROBE_FACTOR = 1.5
# After a cut the limit grows by one per round up to this share of what it was.
RECOVERY_FRACTION = 0.75
# Rounds (of as many answers as the limit is high) before another step is tried, and how many it is tried for.
PROBE_INTERVAL_ROUNDS, MAX_PROBE_INTERVAL_ROUNDS = 8, 64
PROBE_ROUNDS = 8


class AdaptiveConcurrencyLimit:
    """Starts low, doubles per round while that helps, then tries a step up now and then. Times are of one clock."""

    def __init__(self, start: int, maximum: int) -> None:
        self.maximum = max(1, maximum)
        self.start = min(max(1, start), self.maximum)
        self._round_answers, self._round_length, self._round_in_flight, self._round_latency_s = 0, 0, 0, 0.0
        self.reset(-math.inf)

    def reset(self, now: float) -> None:
        """After an outage: from the start again."""
        self._value = float(self.start)
        self._in_slow_start = True
        self._flat_rounds = 0
        # Where to go back to when growing turns out to be of no use; the limit as the present round began.
        self._fallback_value: float = self._value
        self._round_start_value: float = self._value
        # Answers per second, and requests in flight, that growing is compared with.
        self._baseline_rate, self._baseline_in_flight = 0.0, 1.0
        self._probing = False
        self._recovery_value = 0.0
        self._queue_has_room: bool | None = None  # as the server's queue has it; None: it has not said
        self._probe_interval_rounds = PROBE_INTERVAL_ROUNDS
        self._reject_rate = 0.0
        self._last_cut_at = now
        self._reset_round()

    @property
    def value(self) -> int:
        return int(self._value)

    # -- answers ---------------------------------------------------------------------------------------------------

    def on_success(self, in_flight: int, in_flight_at_send: int, latency_s: float) -> None:
        """How many were in flight when the answer came and when its request was sent, itself included.

        An unused limit says nothing about the server.
        """
        self._reject_rate -= self._reject_rate * REJECT_RATE_SMOOTHING
        if in_flight * 2 < self._value:
            self._reset_round()
            return
        if self._in_slow_start:
            self._value = min(float(self.maximum), self._value + 1.0)
        elif self._queue_has_room or self._value < self._recovery_value:
            self._value = min(float(self.maximum), self._value + 1.0 / self._value)
        if self._queue_has_room is not None or in_flight_at_send > self._value:  # asked for under a higher limit
            return
        if not self._round_answers:
            self._round_length = self._count_measured_rounds() * max(4, int(self._value))
        self._round_answers += 1
        self._round_in_flight += in_flight_at_send
        self._round_latency_s += latency_s
        if self._round_answers >= self._round_length:
            # Answers per second by Little's law: counted on the clock they would depend on how bursts fall into rounds.
            rate, mean_in_flight = (
                self._round_in_flight / max(self._round_latency_s, 1e-9),
                self._round_in_flight / self._round_answers,
            )
            self._reset_round()
            self._continue_slow_start(rate, mean_in_flight) if self._in_slow_start else self._probe_up(
                rate, mean_in_flight
            )

    def _count_measured_rounds(self) -> int:
        if self._in_slow_start:
            return 1
        return PROBE_ROUNDS if self._probing else self._probe_interval_rounds

    def _reset_round(self) -> None:
        self._round_answers, self._round_length, self._round_in_flight, self._round_latency_s = 0, 0, 0, 0.0

    def _continue_slow_start(self, rate: float, mean_in_flight: float) -> None:
        if self._has_enough_gain(rate, mean_in_flight):
            # These answers were asked for in the round before: its limit is what they speak for.
            self._fallback_value, self._round_start_value = self._round_start_value, self._value
            self._baseline_rate, self._baseline_in_flight, self._flat_rounds = rate, mean_in_flight, 0
            return
        self._flat_rounds += 1
        if self._flat_rounds == 2:
            self._set_value(self._fallback_value)

    def _probe_up(self, rate: float, mean_in_flight: float) -> None:
        if not self._probing:
            self._baseline_rate, self._baseline_in_flight, self._fallback_value = rate, mean_in_flight, self._value
            self._value = min(float(self.maximum), max(self._value + 1, self._value * PROBE_FACTOR))
            self._probing = self._value > self._fallback_value
        elif self._has_enough_gain(rate, mean_in_flight):
            self._probe_interval_rounds = PROBE_INTERVAL_ROUNDS
            self._set_value(self._value)
        else:
            self._probe_interval_rounds = min(2 * self._probe_interval_rounds, MAX_PROBE_INTERVAL_ROUNDS)
            self._set_value(self._fallback_value)

    def _has_enough_gain(self, rate: float, mean_in_flight: float) -> bool:
        return rate >= self._baseline_rate * (1 + MIN_GAIN * (mean_in_flight / self._baseline_in_flight - 1))

    def _set_value(self, value: float) -> None:
        self._value = max(1.0, value)
        self._in_slow_start = self._probing = False
        self._reset_round()

    # -- trouble ---------------------------------------------------------------------------------------------------

    def on_backpressure(self, sent_at: float, now: float) -> bool:
        """A request was refused or lost. Returns whether that was one too many, and the limit has been cut.

        A burst cuts once: only requests sent after the last cut can cause another.
        """
        if sent_at < self._last_cut_at:
            return False
        self._reject_rate += (1 - self._reject_rate) * REJECT_RATE_SMOOTHING
        if self._reject_rate < MAX_REJECT_RATE:
            return False
        # A step that met refusals was one too far; otherwise the server can bear less than it did.
        if self._probing:
            self._set_value(self._fallback_value)
        else:
            self._recovery_value = RECOVERY_FRACTION * self._value
            self._set_value(self._value / 2)
        self._reject_rate = 0.0
        self._last_cut_at = now
        return True

    def on_queue_length(self, queue_length: int) -> None:
        """So many requests wait inside the server, whoever sent them: those are of no use there."""
        excess = queue_length - max(2.0, self._value / 8)
        self._queue_has_room = excess <= 0
        if not self._queue_has_room:
            # A part of them at a time: other clients see the same queue.
            self._set_value(self._value - min(excess, self._value) / 4)
