"""What a failed attempt means: whose fault it is, and how long to wait before the next.

Belongs here: the meaning of HTTP status codes, Retry-After, backoff. What the engine does about it is in `engine.py`.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum

from mvl_assets.inference.client.chat_protocol import parse_error_message

MAX_RETRY_AFTER_S = 300.0


class FaultScope(Enum):
    """Who is to blame for a failed attempt, which decides what happens next."""

    REQUEST = "row"  # This request can never succeed: never sent again.
    UNKNOWN = "unclear"  # Sent again a bounded number of times.
    ENDPOINT = "endpoint"  # Overload or absence: sent again, does not count against the row.
    CONFIG = "settings"  # If the endpoint refuses the tiny question too, the run ends with an error; else UNCLEAR.


@dataclass(frozen=True, slots=True)
class RequestFault:
    """One failed attempt. `error` is a snake_case class; `server_may_have_crashed` says the server may have died holding the request."""

    error: str
    message: str
    scope: FaultScope
    retry_after_s: float | None = None
    server_may_have_crashed: bool = False


_OVERLOAD_STATUSES = frozenset({429, 503})
# 504: a proxy gave up waiting, which a row that always runs too long would cause each time.
_RETRYABLE_STATUSES = frozenset({408, 409, 425, 504})
_CONFIG_STATUSES = frozenset({401, 402, 403, 404, 405})


def classify_http_status(status: int, body: bytes, retry_after_header: str | None) -> RequestFault:
    """The fault behind an HTTP status other than 200."""
    message = f"HTTP {status}: {parse_error_message(body)}"
    retry_after_s = parse_retry_after(retry_after_header)
    if status in _OVERLOAD_STATUSES:
        return RequestFault(f"http_{status}", message, FaultScope.ENDPOINT, retry_after_s)
    if status in _RETRYABLE_STATUSES:
        return RequestFault(f"http_{status}", message, FaultScope.UNKNOWN, retry_after_s)
    if status >= 500:
        return RequestFault(f"http_{status}", message, FaultScope.UNKNOWN, retry_after_s, server_may_have_crashed=True)
    if status in _CONFIG_STATUSES:
        return RequestFault(f"http_{status}", message, FaultScope.CONFIG)
    return RequestFault(f"http_{status}", message, FaultScope.REQUEST)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or an HTTP date (RFC 9110 §10.2.3); None when absent or unreadable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            retry_at = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        if retry_at.tzinfo is None:
            retry_at = retry_at.replace(tzinfo=dt.UTC)
        seconds = (retry_at - dt.datetime.now(dt.UTC)).total_seconds()
    if seconds != seconds:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def compute_backoff_s(attempt: int, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Full jitter: anywhere between 0 and `base * 2**(attempt - 1)`, at most `cap_s`, for the first retry at 1."""
    return rng.uniform(0.0, min(cap_s, base_s * 2 ** min(attempt - 1, 30)))
