"""Stragglers give up their place, and hedged requests are made for those that hang."""

from __future__ import annotations

from mvl_assets.inference.client.attempt import Attempt, PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.latency import MIN_SAMPLES
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.options import EngineOptions
from tests.inference.helpers import build_requests


def build_client(*sent_at: float) -> tuple[EndpointClient, list[Attempt]]:
    client = EndpointClient(Endpoint("http://host/v1", "m", start_concurrency=4, max_concurrency=4), EngineOptions())
    attempts = [
        Attempt(PendingRequest(request), at) for request, at in zip(build_requests(len(sent_at)), sent_at, strict=True)
    ]
    for attempt in attempts:
        attempt.pending.attempts.append(attempt)
        client.on_sent(attempt)
    return client, attempts


def record_answer(client: EndpointClient, attempt: Attempt, now: float) -> None:
    client.on_success(attempt, 16, now)
    client.on_finished(attempt)


def test_a_straggler_gives_up_its_place_only_while_others_are_answered() -> None:
    client, attempts = build_client(0.0, *(0.5 for _ in range(MIN_SAMPLES + 3)))
    for attempt in attempts[1 : MIN_SAMPLES + 1]:
        record_answer(client, attempt, 1.0)
    assert not client.is_free(50.0)
    client.demote_stragglers()
    assert not client.is_free(50.0), "nothing has been answered for long: the server is slow, and no request is late"
    fresh = Attempt(PendingRequest(build_requests(1)[0]), 1.6)
    fresh.pending.attempts.append(fresh)
    client.on_sent(fresh)
    record_answer(client, fresh, 2.0)
    client.demote_stragglers()
    assert client.is_free(50.0), "the first is late, and those that were sent after it are not"
    assert client.in_flight == 4
    client.on_finished(attempts[0])
    assert client.in_flight == 3


def test_only_the_latest_attempt_decides_whether_a_request_is_hedged() -> None:
    client, attempts = build_client(*(0.0 for _ in range(MIN_SAMPLES + 1)))
    for attempt in attempts[1:]:
        record_answer(client, attempt, 0.2)
    pending = attempts[0].pending
    assert client.list_hedge_candidates(0.4) == []
    assert client.list_hedge_candidates(1.0) == [pending]
    second = Attempt(pending, 1.0)
    pending.attempts.append(second)
    client.on_sent(second)
    assert client.list_hedge_candidates(1.2) == []
    assert client.list_hedge_candidates(2.0) == [pending]
    client.state.begin_draining()
    assert client.list_hedge_candidates(2.0) == []
