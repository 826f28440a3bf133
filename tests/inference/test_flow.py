"""Waiting, limits, and the search for a poison row, each without a server."""

from __future__ import annotations

import datetime as dt
import random
from email.utils import format_datetime

import pytest
from asking import asks
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoint_client import Attempt, Item, Lane
from mvl_assets.inference.faults import Blame, backoff_s, fault_of_status, parse_retry_after
from mvl_assets.inference.quarantine import Quarantine


@pytest.mark.parametrize(
    ("status", "blame", "lost"),
    [
        (400, Blame.ROW, False),
        (413, Blame.ROW, False),
        (422, Blame.ROW, False),
        (401, Blame.SETTINGS, False),
        (404, Blame.SETTINGS, False),
        (408, Blame.UNCLEAR, False),
        (409, Blame.UNCLEAR, False),
        (425, Blame.UNCLEAR, False),
        (429, Blame.ENDPOINT, False),
        (500, Blame.UNCLEAR, True),
        (502, Blame.UNCLEAR, True),
        (503, Blame.ENDPOINT, False),
    ],
)
def test_what_a_status_means(status: int, blame: Blame, lost: bool) -> None:
    fault = fault_of_status(status, b'{"error": {"message": "because"}}', None)
    assert (fault.blame, fault.lost) == (blame, lost)
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
    assert 0 <= backoff_s(attempt, 0.5, 30.0, random.Random(seed)) <= min(30.0, 0.5 * 2 ** min(attempt - 1, 30))


@given(st.integers(1, 300), st.data())
def test_quarantine_convicts_the_poison_row_and_frees_all_others(count: int, data: st.DataObject) -> None:
    items = [Item(request) for request in asks(count)]
    poison = data.draw(st.sampled_from(items))
    lane = Lane(Endpoint("http://host/v1", "m"))
    quarantine = Quarantine(parts=8, deaths_to_fail=2)
    assert quarantine.put(lane, items) == []
    cleared: list[Item] = []
    deaths = 1
    guilty: list[Item] = []
    while (turn := quarantine.next_group([lane], now=0.0)) is not None:
        _, group = turn
        if poison in group:
            deaths += 1
            guilty += quarantine.put(lane, group)
        else:
            cleared += group
    assert guilty == [poison]
    assert {id(item) for item in cleared} == {id(item) for item in items} - {id(poison)}
    assert deaths <= 6
    assert not lane.reserved


def test_a_group_waits_until_its_lane_is_empty_and_nothing_else_goes_there() -> None:
    lane = Lane(Endpoint("http://host/v1", "m"))
    quarantine = Quarantine(parts=8, deaths_to_fail=2)
    quarantine.put(lane, [Item(request) for request in asks(2)])
    attempt = Attempt(Item(asks(1)[0]), sent_at=0.0)
    lane.sent(attempt)
    assert quarantine.next_group([lane], now=0.0) is None
    assert not lane.is_free(0.0)
    lane.ended(attempt)
    turn = quarantine.next_group([lane], now=0.0)
    assert turn is not None and len(turn[1]) == 1


def test_suspects_move_to_another_endpoint_only_when_theirs_stays_away() -> None:
    died, other = Lane(Endpoint("http://a/v1", "m")), Lane(Endpoint("http://b/v1", "m"))
    quarantine = Quarantine(parts=8, deaths_to_fail=2)
    quarantine.put(died, [Item(request) for request in asks(1)])
    died.down_since = 100.0
    assert quarantine.next_group([died, other], now=110.0) is None
    turn = quarantine.next_group([died, other], now=140.0)
    assert turn is not None and turn[0] is other
