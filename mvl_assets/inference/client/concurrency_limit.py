"""Adaptive limit of concurrent requests per endpoint: raised while throughput grows, cut when requests are rejected.

It works like TCP congestion control and Netflix's concurrency-limits
(https://github.com/Netflix/concurrency-limits). The best number cannot be known beforehand, and it moves with the
length of the requests. Three signals are used:

- Queue length: a server that reports it (vLLM does) gets more while nothing waits there, and less when much does.
- Throughput: any other server gets more only while that brings more answers per second. Beyond that point requests
  merely wait in the server, and only latency grows. Slow start doubles the limit per round; later, a step up is probed
  now and then.
- Rejections: 429, 503, lost connections and time-outs halve the limit when they are more than a few in a hundred, and
  it then recovers by one per round (AIMD: additive increase, multiplicative decrease).
"""

from __future__ import annotations

import math

# A rejection moves the moving average of rejections by this much; above the maximum it is overload and not chance.
REJECT_RATE_SMOOTHING = 1 / 64
MAX_REJECT_RATE = 0.15
# This share of a relative increase of requests in flight must show in the answers per second.
MIN_GAIN = 0.3
PROBE_FACTOR = 1.5
# After a cut the limit grows by one per round up to this share of its former value.
RECOVERY_FRACTION = 0.75
# Rounds (of as many answers as the limit is high) before another step is tried, and how many it is tried for.
PROBE_INTERVAL_ROUNDS, MAX_PROBE_INTERVAL_ROUNDS = 8, 64
PROBE_ROUNDS = 8


class AdaptiveConcurrencyLimit:
    """The limit of one endpoint, between 1 and `maximum`. All times are seconds on one monotonic clock.

    Args:
        start: Where slow start begins, also after an outage.
        maximum: Never exceeded.
    """

    def __init__(self, start: int, maximum: int) -> None:
        self.maximum = max(1, maximum)
        self.start = min(max(1, start), self.maximum)
        self._round_answers, self._round_length, self._round_in_flight, self._round_latency_s = 0, 0, 0, 0.0
        self.reset(-math.inf)

    def reset(self, now: float) -> None:
        """Begin again with slow start, after an outage."""
        self._value = float(self.start)
        self._in_slow_start = True
        self._flat_rounds = 0
        # Where to go back to when growth turns out to be useless; the limit at the beginning of the round.
        self._fallback_value: float = self._value
        self._round_start_value: float = self._value
        # Answers per second, and requests in flight, that growth is compared with.
        self._baseline_rate, self._baseline_in_flight = 0.0, 1.0
        self._probing = False
        self._recovery_value = 0.0
        self._queue_has_room: bool | None = None  # None: the server has not reported its queue
        self._probe_interval_rounds = PROBE_INTERVAL_ROUNDS
        self._reject_rate = 0.0
        self._last_cut_at = now
        self._reset_round()

    @property
    def value(self) -> int:
        return int(self._value)

    # -- answers ---------------------------------------------------------------------------------------------------

    def on_success(self, in_flight: int, in_flight_at_send: int, latency_s: float) -> None:
        """Record an answer. A limit that is not used says nothing about the server.

        Args:
            in_flight: Requests in flight when the answer came, its own included.
            in_flight_at_send: The same when its request was sent.
            latency_s: Time between the two.
        """
        self._reject_rate -= self._reject_rate * REJECT_RATE_SMOOTHING
        if in_flight * 2 < self._value:
            self._reset_round()
            return
        if self._in_slow_start:
            self._value = min(float(self.maximum), self._value + 1.0)
        elif self._queue_has_room or self._value < self._recovery_value:
            self._value = min(float(self.maximum), self._value + 1.0 / self._value)
        if self._queue_has_room is not None or in_flight_at_send > self._value:  # sent under a higher limit
            return
        if not self._round_answers:
            self._round_length = self._count_measured_rounds() * max(4, int(self._value))
        self._round_answers += 1
        self._round_in_flight += in_flight_at_send
        self._round_latency_s += latency_s
        if self._round_answers >= self._round_length:
            # Answers per second by Little's law: counted by the clock they would depend on how bursts fall into rounds.
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
            # These requests were sent in the round before, so they are evidence about its limit.
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

    # -- overload --------------------------------------------------------------------------------------------------

    def on_backpressure(self, sent_at: float, now: float) -> bool:
        """Record a request that was rejected or lost, and return whether the limit was cut.

        A burst cuts once: only requests sent after the last cut can cause another.
        """
        if sent_at < self._last_cut_at:
            return False
        self._reject_rate += (1 - self._reject_rate) * REJECT_RATE_SMOOTHING
        if self._reject_rate < MAX_REJECT_RATE:
            return False
        # A probe that met rejections went too far; without a probe the server can take less than before.
        if self._probing:
            self._set_value(self._fallback_value)
        else:
            self._recovery_value = RECOVERY_FRACTION * self._value
            self._set_value(self._value / 2)
        self._reject_rate = 0.0
        self._last_cut_at = now
        return True

    def on_queue_length(self, queue_length: int) -> None:
        """Record how many requests wait inside the server, whichever client sent them: waiting there gains nothing."""
        excess = queue_length - max(2.0, self._value / 8)
        self._queue_has_room = excess <= 0
        if not self._queue_has_room:
            # A part at a time: other clients see the same queue.
            self._set_value(self._value - min(excess, self._value) / 4)
