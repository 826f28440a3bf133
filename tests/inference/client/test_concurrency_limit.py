"""The limit against servers that are simulated on a clock of their own: where does it settle?"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

import pytest

from mvl_assets.inference.client.concurrency_limit import AdaptiveConcurrencyLimit


@dataclass
class SimulatedServer:
    """Works on `slots` requests at a time, each for `service_s` on average; rejects what is beyond `capacity`."""

    slots: int
    service_s: float = 1.0
    capacity: int | None = None
    reject_rate: float = 0.0
    even: bool = False


def drive_limit(
    limit: AdaptiveConcurrencyLimit,
    server: SimulatedServer,
    answers: int,
    *,
    reports_queue: bool = False,
    seed: int = 1,
) -> list[int]:
    """Keeps as many requests in flight as the limit allows; its value at every answer of the second half."""
    rng = random.Random(seed)
    now, done, in_flight = 0.0, 0, 0
    free_at = [0.0] * server.slots
    heapq.heapify(free_at)
    events: list[tuple[float, int, float, int, bool]] = []
    values, number, next_poll = [], 0, 2.0
    while done < answers:
        while in_flight < limit.value:
            number += 1
            in_flight += 1
            full = server.capacity is not None and sum(1 for event in events if event[-1]) >= server.capacity
            if full or rng.random() < server.reject_rate:
                heapq.heappush(events, (now + 0.01, number, now, in_flight, False))
                continue
            work = server.service_s * (1.0 if server.even else rng.expovariate(1.0))
            ends = max(now, heapq.heappop(free_at)) + work
            heapq.heappush(free_at, ends)
            heapq.heappush(events, (ends, number, now, in_flight, True))
        now, _, sent_at, in_flight_at_send, good = heapq.heappop(events)
        if good:
            done += 1
            limit.on_success(in_flight, in_flight_at_send, now - sent_at)
        else:
            limit.on_backpressure(sent_at, now)
        in_flight -= 1
        if reports_queue and now >= next_poll:
            next_poll = now + 2.0
            limit.on_queue_length(max(0, in_flight - server.slots))
        if done > answers // 2:
            values.append(limit.value)
    return values


def compute_median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


@pytest.mark.parametrize("slots", [6, 20, 100])
@pytest.mark.parametrize("even", [True, False])
def test_the_limit_settles_near_the_number_of_slots(slots: int, even: bool) -> None:
    for seed in range(5):
        values = drive_limit(
            AdaptiveConcurrencyLimit(8, 1024), SimulatedServer(slots, even=even), 60 * slots + 4000, seed=seed
        )
        assert 0.8 * slots <= compute_median(values) <= 2.6 * slots + 8


def test_the_limit_of_a_server_that_is_never_full_reaches_its_maximum() -> None:
    for seed in range(5):
        values = drive_limit(AdaptiveConcurrencyLimit(8, 64), SimulatedServer(1000), 6000, seed=seed)
        assert compute_median(values) >= 51


def test_a_queue_inside_the_server_lowers_a_limit_that_started_too_high() -> None:
    values = drive_limit(AdaptiveConcurrencyLimit(256, 256), SimulatedServer(20), 4000, reports_queue=True)
    assert 18 <= compute_median(values) <= 40


def test_a_few_rejections_among_many_answers_do_not_cut_the_limit() -> None:
    values = drive_limit(AdaptiveConcurrencyLimit(64, 64), SimulatedServer(1000, reject_rate=0.05), 4000)
    assert min(values) == 64


def test_the_limit_settles_near_the_capacity_of_a_server_that_rejects_the_rest() -> None:
    values = drive_limit(AdaptiveConcurrencyLimit(8, 512), SimulatedServer(20, capacity=24), 4000)
    assert 12 <= compute_median(values) <= 40


def test_a_burst_of_rejections_cuts_once_and_a_later_one_again() -> None:
    limit = AdaptiveConcurrencyLimit(32, 64)
    cuts = [limit.on_backpressure(sent_at=1.0, now=2.0) for _ in range(40)]
    assert (sum(cuts), limit.value) == (1, 16)
    cuts = [limit.on_backpressure(sent_at=3.0, now=4.0) for _ in range(40)]
    assert (sum(cuts), limit.value) == (1, 8)


def test_after_a_cut_the_limit_grows_by_one_per_round() -> None:
    limit = AdaptiveConcurrencyLimit(32, 64)
    for _ in range(40):
        limit.on_backpressure(sent_at=1.0, now=2.0)
    for _ in range(17):
        limit.on_success(16, 16, latency_s=1.0)
    assert limit.value == 17


def test_a_limit_that_is_not_used_does_not_grow_and_never_leaves_its_bounds() -> None:
    limit = AdaptiveConcurrencyLimit(8, 10)
    for _ in range(100):
        limit.on_success(1, 1, latency_s=1.0)
    assert limit.value == 8
    for _ in range(100):
        limit.on_success(10, 10, latency_s=1.0)
    assert limit.value <= 10
    for moment in range(200, 2000):
        limit.on_backpressure(sent_at=moment + 0.5, now=moment + 0.5)
    assert limit.value == 1
    limit.on_queue_length(1000)
    assert limit.value == 1
    limit.reset(3000.0)
    assert limit.value == 8
