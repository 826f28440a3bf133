"""What a status means, how long Retry-After asks to wait, and how long a retry waits."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.inference.client.faults import FaultScope, classify_http_status, compute_backoff_s


@pytest.mark.parametrize(
    ("status", "scope", "may_have_crashed"),
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
def test_a_status_has_a_fault_scope(status: int, scope: FaultScope, may_have_crashed: bool) -> None:
    fault = classify_http_status(status, b'{"error": {"message": "because"}}', None)
    assert (fault.scope, fault.server_may_have_crashed) == (scope, may_have_crashed)
    assert fault.message == f"HTTP {status}: because"


def test_retry_after_is_obeyed_up_to_five_minutes() -> None:
    assert classify_http_status(429, b"", "3").retry_after_s == 3
    assert classify_http_status(503, b"", "1e9").retry_after_s == 300
    assert classify_http_status(408, b"", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT").retry_after_s is None


@given(st.integers(1, 10_000), st.integers(0, 2**32))
def test_backoff_stays_within_its_cap(attempt: int, seed: int) -> None:
    assert 0 <= compute_backoff_s(attempt, 0.5, 30.0, random.Random(seed)) <= min(30.0, 0.5 * 2 ** min(attempt - 1, 30))
