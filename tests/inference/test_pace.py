"""When a request is late, and when it is given up."""

from __future__ import annotations

from asking import asks

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoint_client import Attempt, Item, Lane
from mvl_assets.inference.latency import ENOUGH, SHORTEST_TIMEOUT_S, Pace


def after(replies: int, latency_s: float, tokens: int = 10, max_tokens: int = 100) -> Pace:
    pace = Pace()
    for _ in range(replies):
        pace.replied(latency_s, tokens, max_tokens)
    return pace


def test_a_few_replies_say_nothing() -> None:
    pace = after(ENOUGH - 1, 1.0)
    assert pace.late_s is None
    assert pace.timeout_s(100.0, given_up_before=0) == 100.0


def test_the_longest_answer_that_may_come_gets_its_time_and_a_second_attempt_twice_that() -> None:
    pace = after(ENOUGH, 1.0)
    assert pace.timeout_s(1000.0, given_up_before=0) == 20.0
    assert pace.timeout_s(1000.0, given_up_before=1) == 40.0
    assert pace.timeout_s(30.0, given_up_before=1) == 30.0
    assert after(ENOUGH, 0.001).timeout_s(1000.0, given_up_before=0) == SHORTEST_TIMEOUT_S


def test_one_slow_reply_counts_and_is_forgotten_in_the_end() -> None:
    pace = after(ENOUGH, 1.0)
    usual = pace.late_s
    pace.replied(20.0, 10, 100)
    slow = pace.late_s
    for _ in range(500):
        pace.replied(1.0, 10, 100)
    assert usual is not None and slow is not None
    assert slow > 10 * usual
    assert pace.late_s == usual


def lane_with(*sent_at: float) -> tuple[Lane, list[Attempt]]:
    lane = Lane(Endpoint("http://host/v1", "m", start_concurrency=4, max_concurrency=4))
    attempts = [Attempt(Item(request), at) for request, at in zip(asks(len(sent_at)), sent_at, strict=True)]
    for attempt in attempts:
        attempt.item.attempts.append(attempt)
        lane.sent(attempt)
    return lane, attempts


def answer(lane: Lane, attempt: Attempt, now: float) -> None:
    lane.succeeded(attempt, 16, now)
    lane.ended(attempt)


def test_a_late_request_gives_up_its_place_only_while_others_are_answered() -> None:
    lane, attempts = lane_with(0.0, *(0.5 for _ in range(ENOUGH + 3)))
    for attempt in attempts[1 : ENOUGH + 1]:
        answer(lane, attempt, 1.0)
    assert not lane.is_free(50.0)
    lane.look_for_late()
    assert not lane.is_free(50.0), "nothing has been answered for long: the server is slow, and nobody is late"
    fresh = Attempt(Item(asks(1)[0]), 1.6)
    fresh.item.attempts.append(fresh)
    lane.sent(fresh)
    answer(lane, fresh, 2.0)
    lane.look_for_late()
    assert lane.is_free(50.0), "the first is late, and those that were sent after it are not"
    assert lane.in_flight == 4
    lane.ended(attempts[0])
    assert lane.in_flight == 3


def test_only_the_latest_attempt_of_a_request_makes_another_one_due() -> None:
    lane, attempts = lane_with(*(0.0 for _ in range(ENOUGH + 1)))
    for attempt in attempts[1:]:
        answer(lane, attempt, 0.2)
    item = attempts[0].item
    assert lane.worth_asking_beside(0.4) == []
    assert lane.worth_asking_beside(1.0) == [item]
    second = Attempt(item, 1.0)
    item.attempts.append(second)
    lane.sent(second)
    assert lane.worth_asking_beside(1.2) == []
    assert lane.worth_asking_beside(2.0) == [item]
    lane.reserved = True
    assert lane.worth_asking_beside(2.0) == []
