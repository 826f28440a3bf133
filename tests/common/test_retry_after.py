"""Seconds and dates in `Retry-After`, and what no server should send."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.common.retry_after import parse_retry_after


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    later = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=20), usegmt=True)
    seconds = parse_retry_after(later)
    assert seconds is not None and 15 < seconds <= 20
    assert parse_retry_after("3") == 3
    assert parse_retry_after("-3") == 0
    assert parse_retry_after("1e9") == 1e9
    assert parse_retry_after("nan") is None
    assert parse_retry_after(None) is None


@given(st.text(max_size=40))
def test_any_text_gives_a_number_of_seconds_or_none(header: str) -> None:
    seconds = parse_retry_after(header)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("header", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_date_that_no_calendar_has_raises_nothing(header: str) -> None:
    seconds = parse_retry_after(header)
    assert seconds is None or seconds >= 0
