"""The limit against servers that are simulated on a clock of their own: where does it settle?"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

import pytest

from mvl_assets.inference.client.concurrency_limit import AdaptiveConcurrencyLimit


@dataclass
class Simulated:
    """Works on `slots` requests at a time, each for `service_s` on average; refuses what is beyond `room`."""

    slots: int
    service_s: float = 1.0
    room: int | None = None
    refuses: float = 0.0
    even: bool = False


def drive(
    limit: AdaptiveConcurrencyLimit, server: Simulated, answers: int, *, tells_queue: bool = False, seed: int = 1
) -> list[int]:
    """Keeps as many requests in flight as the limit allows; its value at every answer of the second half."""
    rng = random.Random(seed)
    now, done, in_flight = 0.0, 0, 0
    free_at = [0.0] * server.slots
    heapq.heapify(free_at)
    events: list[tuple[float, int, float, int, bool]] = []
    values, number, next_look = [], 0, 2.0
    while done < answers:
        while in_flight < limit.value:
            number += 1
            in_flight += 1
            full = server.room is not None and sum(1 for event in events if event[-1]) >= server.room
            if full or rng.random() < server.refuses:
                heapq.heappush(events, (now + 0.01, number, now, in_flight, False))
                continue
            work = server.service_s * (1.0 if server.even else rng.expovariate(1.0))
            ends = max(now, heapq.heappop(free_at)) + work
            heapq.heappush(free_at, ends)
            heapq.heappush(events, (ends, number, now, in_flight, True))
        now, _, sent_at, then, good = heapq.heappop(events)
        if good:
            done += 1
            limit.on_success(in_flight, then, now - sent_at)
        else:
            limit.on_backpressure(sent_at, now)
        in_flight -= 1
        if tells_queue and now >= next_look:
            next_look = now + 2.0
            limit.on_queue_length(max(0, in_flight - server.slots))
        if done > answers // 2:
            values.append(limit.value)
    return values


def middle(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


@pytest.mark.parametrize("slots", [6, 20, 100])
@pytest.mark.parametrize("even", [True, False])
def test_it_settles_near_what_the_server_can_use(slots: int, even: bool) -> None:
    for seed in range(5):
        values = drive(AdaptiveConcurrencyLimit(8, 1024), Simulated(slots, even=even), 60 * slots + 4000, seed=seed)
        assert 0.8 * slots <= middle(values) <= 2.6 * slots + 8


def test_a_server_that_is_never_full_gets_all_it_may() -> None:
    for seed in range(5):
        values = drive(AdaptiveConcurrencyLimit(8, 64), Simulated(1000), 6000, seed=seed)
        assert middle(values) >= 51


def test_a_queue_inside_the_server_brings_a_limit_down_that_began_too_high() -> None:
    values = drive(AdaptiveConcurrencyLimit(256, 256), Simulated(20), 4000, tells_queue=True)
    assert 18 <= middle(values) <= 40


def test_a_few_refusals_among_many_answers_cut_nothing() -> None:
    values = drive(AdaptiveConcurrencyLimit(64, 64), Simulated(1000, refuses=0.05), 4000)
    assert min(values) == 64


def test_a_server_that_refuses_what_is_beyond_its_room_is_not_asked_much_more() -> None:
    values = drive(AdaptiveConcurrencyLimit(8, 512), Simulated(20, room=24), 4000)
    assert 12 <= middle(values) <= 40


def test_a_burst_of_refusals_cuts_once_and_a_later_one_again() -> None:
    limit = AdaptiveConcurrencyLimit(32, 64)
    cuts = [limit.on_backpressure(sent_at=1.0, now=2.0) for _ in range(40)]
    assert (sum(cuts), limit.value) == (1, 16)
    cuts = [limit.on_backpressure(sent_at=3.0, now=4.0) for _ in range(40)]
    assert (sum(cuts), limit.value) == (1, 8)


def test_after_a_cut_it_comes_back_by_one_per_round() -> None:
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
