"""What a failed attempt means: whose fault it is, and how long to wait before the next.

Belongs here: the meaning of HTTP status codes, Retry-After, backoff. What the engine does about it is in `engine.py`.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum

from mvl_assets.inference.chat_protocol import error_message

MAX_RETRY_AFTER_S = 300.0


class Blame(Enum):
    """Who is to blame for a failed attempt, which decides what happens next."""

    ROW = "row"  # This request can never succeed: never sent again.
    UNCLEAR = "unclear"  # Sent again a bounded number of times.
    ENDPOINT = "endpoint"  # Overload or absence: sent again, does not count against the row.
    SETTINGS = "settings"  # If the endpoint refuses the tiny question too, the run ends with an error; else UNCLEAR.


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt. `error` is a snake_case class; `lost` says the server may have died holding the request."""

    error: str
    message: str
    blame: Blame
    retry_after: float | None = None
    lost: bool = False


_OVERLOAD = frozenset({429, 503})
# 504: a proxy gave up waiting, which a row that always runs too long would cause each time.
_TRY_AGAIN = frozenset({408, 409, 425, 504})
_SETTINGS = frozenset({401, 402, 403, 404, 405})


def fault_of_status(status: int, body: bytes, retry_after: str | None) -> Fault:
    """The fault behind an HTTP status other than 200."""
    message = f"HTTP {status}: {error_message(body)}"
    wait = parse_retry_after(retry_after)
    if status in _OVERLOAD:
        return Fault(f"http_{status}", message, Blame.ENDPOINT, wait)
    if status in _TRY_AGAIN:
        return Fault(f"http_{status}", message, Blame.UNCLEAR, wait)
    if status >= 500:
        return Fault(f"http_{status}", message, Blame.UNCLEAR, wait, lost=True)
    if status in _SETTINGS:
        return Fault(f"http_{status}", message, Blame.SETTINGS)
    return Fault(f"http_{status}", message, Blame.ROW)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or an HTTP date (RFC 9110 §10.2.3); None when absent or unreadable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=dt.UTC)
        seconds = (when - dt.datetime.now(dt.UTC)).total_seconds()
    if seconds != seconds:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def backoff_s(attempt: int, base: float, cap: float, rng: random.Random) -> float:
    """Full jitter: anywhere between 0 and `base * 2**(attempt - 1)`, at most `cap`, for the first retry at 1."""
    return rng.uniform(0.0, min(cap, base * 2 ** min(attempt - 1, 30)))
