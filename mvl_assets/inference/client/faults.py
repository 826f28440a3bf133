"""Classification of failed attempts: what is at fault, and how long to wait before the next attempt.

What the engine does about it is decided in `scheduling.fault_handler`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from mvl_assets.common.retry_after import MAX_RETRY_AFTER_S, parse_retry_after
from mvl_assets.inference.client.chat_protocol import parse_error_message


class FaultScope(Enum):
    """The party at fault when an attempt fails, which decides what happens next."""

    REQUEST = "request"  # This request can never succeed: it is not sent again.
    UNKNOWN = "unknown"  # Sent again a bounded number of times.
    ENDPOINT = "endpoint"  # Overload or absence: sent again, and not held against the request.
    CONFIG = "config"  # If the endpoint rejects the probe too, the run ends with an error; otherwise as UNKNOWN.


@dataclass(frozen=True, slots=True)
class RequestFault:
    """One failed attempt.

    Attributes:
        error: A snake_case code.
        retry_after_s: Seconds to wait, as the server asked for.
        server_may_have_crashed: Whether the server may have crashed while it held the request.
    """

    error: str
    message: str
    scope: FaultScope
    retry_after_s: float | None = None
    server_may_have_crashed: bool = False


_OVERLOAD_STATUSES = frozenset({429, 503})
# 504: a proxy gave up waiting, which a request that always runs too long would cause each time.
_RETRYABLE_STATUSES = frozenset({408, 409, 425, 504})
_CONFIG_STATUSES = frozenset({401, 402, 403, 404, 405})


def classify_http_status(status: int, body: bytes, retry_after_header: str | None) -> RequestFault:
    """Return the fault that an HTTP status other than 200 reports."""
    message = f"HTTP {status}: {parse_error_message(body)}"
    retry_after_s = parse_retry_after(retry_after_header)
    if retry_after_s is not None:
        retry_after_s = min(retry_after_s, MAX_RETRY_AFTER_S)
    if status in _OVERLOAD_STATUSES:
        return RequestFault(f"http_{status}", message, FaultScope.ENDPOINT, retry_after_s)
    if status in _RETRYABLE_STATUSES:
        return RequestFault(f"http_{status}", message, FaultScope.UNKNOWN, retry_after_s)
    if status >= 500:
        return RequestFault(f"http_{status}", message, FaultScope.UNKNOWN, retry_after_s, server_may_have_crashed=True)
    if status in _CONFIG_STATUSES:
        return RequestFault(f"http_{status}", message, FaultScope.CONFIG)
    return RequestFault(f"http_{status}", message, FaultScope.REQUEST)


def compute_backoff_s(attempt: int, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Return an exponential backoff with full jitter, in seconds.

    Uniform between 0 and `base_s * 2**(attempt - 1)`, at most `cap_s`; `attempt` is 1 before the first retry.
    "Full jitter": Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.

    Args:
        attempt: Number of failed attempts: 1 before the first retry.
        base_s: Upper bound of the first wait, in seconds.
        cap_s: Upper bound of every wait, in seconds.
        rng: Source of the jitter.
    """
    return rng.uniform(0.0, min(cap_s, base_s * 2 ** min(attempt - 1, 30)))
