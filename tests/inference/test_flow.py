"""Waiting, limits, and the search for a poison row, each without a server."""

from __future__ import annotations

import datetime as dt
import random
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoint_client import Attempt, EndpointClient, PendingRequest
from mvl_assets.inference.faults import FaultScope, classify_http_status, compute_backoff_s, parse_retry_after
from mvl_assets.inference.quarantine import Quarantine
from tests.inference.asking import asks


@pytest.mark.parametrize(
    ("status", "blame", "lost"),
    [
        (400, FaultScope.REQUEST, False),
        (413, FaultScope.REQUEST, False),
        (422, FaultScope.REQUEST, False),
        (401, FaultScope.CONFIG, False),
        (404, FaultScope.CONFIG, False),
        (408, FaultScope.UNKNOWN, False),
        (409, FaultScope.UNKNOWN, False),
        (425, FaultScope.UNKNOWN, False),
        (429, FaultScope.ENDPOINT, False),
        (500, FaultScope.UNKNOWN, True),
        (502, FaultScope.UNKNOWN, True),
        (503, FaultScope.ENDPOINT, False),
    ],
)
def test_what_a_status_means(status: int, blame: FaultScope, lost: bool) -> None:
    fault = classify_http_status(status, b'{"error": {"message": "because"}}', None)
    assert (fault.scope, fault.server_may_have_crashed) == (blame, lost)
    assert fault.message == f"HTTP {status}: because"


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    later = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=20), usegmt=True)
    parsed = parse_retry_after(later)
    assert parsed is not None and 15 < parsed <= 20
    assert parse_retry_after("3") == 3
    assert parse_retry_after("-3") == 0
    assert parse_retry_after("1e9") == 300


@given(st.text(max_size=40))
def test_no_retry_after_is_too_odd(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds <= 300


@given(st.integers(1, 10_000), st.integers(0, 2**32))
def test_backoff_stays_within_its_cap(attempt: int, seed: int) -> None:
    assert 0 <= compute_backoff_s(attempt, 0.5, 30.0, random.Random(seed)) <= min(30.0, 0.5 * 2 ** min(attempt - 1, 30))


@given(st.integers(1, 300), st.data())
def test_quarantine_convicts_the_poison_row_and_frees_all_others(count: int, data: st.DataObject) -> None:
    items = [PendingRequest(request) for request in asks(count)]
    poison = data.draw(st.sampled_from(items))
    lane = EndpointClient(Endpoint("http://host/v1", "m"))
    quarantine = Quarantine(n_groups=8, max_solo_crashes=2)
    assert quarantine.add_suspects(lane, items) == []
    cleared: list[PendingRequest] = []
    deaths = 1
    guilty: list[PendingRequest] = []
    while (turn := quarantine.pop_next_group([lane], now=0.0)) is not None:
        _, group = turn
        if poison in group:
            deaths += 1
            guilty += quarantine.add_suspects(lane, group)
        else:
            cleared += group
    assert guilty == [poison]
    assert {id(item) for item in cleared} == {id(item) for item in items} - {id(poison)}
    assert deaths <= 6
    assert not lane.draining


def test_a_group_waits_until_its_lane_is_empty_and_nothing_else_goes_there() -> None:
    lane = EndpointClient(Endpoint("http://host/v1", "m"))
    quarantine = Quarantine(n_groups=8, max_solo_crashes=2)
    quarantine.add_suspects(lane, [PendingRequest(request) for request in asks(2)])
    attempt = Attempt(PendingRequest(asks(1)[0]), sent_at=0.0)
    lane.on_sent(attempt)
    assert quarantine.pop_next_group([lane], now=0.0) is None
    assert not lane.is_free(0.0)
    lane.on_finished(attempt)
    turn = quarantine.pop_next_group([lane], now=0.0)
    assert turn is not None and len(turn[1]) == 1


def test_suspects_move_to_another_endpoint_only_when_theirs_stays_away() -> None:
    died, other = EndpointClient(Endpoint("http://a/v1", "m")), EndpointClient(Endpoint("http://b/v1", "m"))
    quarantine = Quarantine(n_groups=8, max_solo_crashes=2)
    quarantine.add_suspects(died, [PendingRequest(request) for request in asks(1)])
    died.down_since = 100.0
    assert quarantine.pop_next_group([died, other], now=110.0) is None
    turn = quarantine.pop_next_group([died, other], now=140.0)
    assert turn is not None and turn[0] is other
