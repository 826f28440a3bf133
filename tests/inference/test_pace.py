"""When a request is late, and when it is given up."""

from __future__ import annotations

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoint_client import Attempt, EndpointClient, PendingRequest
from mvl_assets.inference.latency import MIN_SAMPLES, MIN_TIMEOUT_S, LatencyTracker
from tests.inference.asking import asks


def after(replies: int, latency_s: float, tokens: int = 10, max_tokens: int = 100) -> LatencyTracker:
    pace = LatencyTracker()
    for _ in range(replies):
        pace.observe(latency_s, tokens, max_tokens)
    return pace


def test_a_few_replies_say_nothing() -> None:
    pace = after(MIN_SAMPLES - 1, 1.0)
    assert pace.straggler_after_s is None
    assert pace.compute_timeout_s(100.0, client_timeouts=0) == 100.0


def test_the_longest_answer_that_may_come_gets_its_time_and_a_second_attempt_twice_that() -> None:
    pace = after(MIN_SAMPLES, 1.0)
    assert pace.compute_timeout_s(1000.0, client_timeouts=0) == 20.0
    assert pace.compute_timeout_s(1000.0, client_timeouts=1) == 40.0
    assert pace.compute_timeout_s(30.0, client_timeouts=1) == 30.0
    assert after(MIN_SAMPLES, 0.001).compute_timeout_s(1000.0, client_timeouts=0) == MIN_TIMEOUT_S


def test_one_slow_reply_counts_and_is_forgotten_in_the_end() -> None:
    pace = after(MIN_SAMPLES, 1.0)
    usual = pace.straggler_after_s
    pace.observe(20.0, 10, 100)
    slow = pace.straggler_after_s
    for _ in range(500):
        pace.observe(1.0, 10, 100)
    assert usual is not None and slow is not None
    assert slow > 10 * usual
    assert pace.straggler_after_s == usual


def lane_with(*sent_at: float) -> tuple[EndpointClient, list[Attempt]]:
    lane = EndpointClient(Endpoint("http://host/v1", "m", start_concurrency=4, max_concurrency=4))
    attempts = [Attempt(PendingRequest(request), at) for request, at in zip(asks(len(sent_at)), sent_at, strict=True)]
    for attempt in attempts:
        attempt.pending.attempts.append(attempt)
        lane.on_sent(attempt)
    return lane, attempts


def answer(lane: EndpointClient, attempt: Attempt, now: float) -> None:
    lane.on_success(attempt, 16, now)
    lane.on_finished(attempt)


def test_a_late_request_gives_up_its_place_only_while_others_are_answered() -> None:
    lane, attempts = lane_with(0.0, *(0.5 for _ in range(MIN_SAMPLES + 3)))
    for attempt in attempts[1 : MIN_SAMPLES + 1]:
        answer(lane, attempt, 1.0)
    assert not lane.is_free(50.0)
    lane.demote_stragglers()
    assert not lane.is_free(50.0), "nothing has been answered for long: the server is slow, and nobody is late"
    fresh = Attempt(PendingRequest(asks(1)[0]), 1.6)
    fresh.pending.attempts.append(fresh)
    lane.on_sent(fresh)
    answer(lane, fresh, 2.0)
    lane.demote_stragglers()
    assert lane.is_free(50.0), "the first is late, and those that were sent after it are not"
    assert lane.in_flight == 4
    lane.on_finished(attempts[0])
    assert lane.in_flight == 3


def test_only_the_latest_attempt_of_a_request_makes_another_one_due() -> None:
    lane, attempts = lane_with(*(0.0 for _ in range(MIN_SAMPLES + 1)))
    for attempt in attempts[1:]:
        answer(lane, attempt, 0.2)
    item = attempts[0].pending
    assert lane.list_hedge_candidates(0.4) == []
    assert lane.list_hedge_candidates(1.0) == [item]
    second = Attempt(item, 1.0)
    item.attempts.append(second)
    lane.on_sent(second)
    assert lane.list_hedge_candidates(1.2) == []
    assert lane.list_hedge_candidates(2.0) == [item]
    lane.draining = True
    assert lane.list_hedge_candidates(2.0) == []
