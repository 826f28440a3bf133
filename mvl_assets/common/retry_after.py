"""The HTTP header `Retry-After`."""

from __future__ import annotations

import datetime as dt
import math
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 300.0
"""Longest wait that a server is granted; what follows when it asks for more is the caller's to decide."""


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds to wait that a `Retry-After` asks for, as a number or an HTTP date (RFC 9110, section 10.2.3).

    Returns:
        At least 0 and possibly infinite, so callers set a bound; None when the header is absent or unreadable.
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            retry_at = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return None
        if retry_at.tzinfo is None:
            retry_at = retry_at.replace(tzinfo=dt.UTC)
        seconds = (retry_at - dt.datetime.now(dt.UTC)).total_seconds()
    return None if math.isnan(seconds) else max(seconds, 0.0)
