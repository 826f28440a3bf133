"""Watching a run: how fast it goes, and when waiting for its endpoints has gone on long enough."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mvl_assets.inference.endpoint import EndpointError
from mvl_assets.inference.endpoint_client import Lane
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Outcome, Progress

if TYPE_CHECKING:
    from mvl_assets.config.profile import Price

# Speed is measured over the last so many reports.
READINGS = 6


class Reporter:
    """Makes one run's progress reports. `total` is the number of requests, when it is known."""

    def __init__(self, name: str, total: int | None, price: Price | None) -> None:
        self._name = name
        self._total = total
        # A price of nothing is none: a model of one's own has no price per token.
        self._price = price if price is not None and price.cost(1_000_000, 1_000_000) else None
        self._started = time.monotonic()
        self._readings: deque[tuple[float, int, int]] = deque(maxlen=READINGS)

    def report(self, outcome: Outcome, lanes: Sequence[Lane], errors: Mapping[str, int]) -> Progress:
        rows = outcome.reused + outcome.equal + outcome.answered + len(outcome.failures)
        now = time.monotonic()
        self._readings.append((now, rows, outcome.completion_tokens))
        then, rows_then, tokens_then = self._readings[0]
        span = max(now - then, 1e-9)
        rows_per_s = (rows - rows_then) / span
        left = None if self._total is None else max(0, self._total - rows)
        return Progress(
            name=self._name,
            rows=rows,
            total=self._total,
            rows_per_s=rows_per_s,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            tokens_per_s=(outcome.completion_tokens - tokens_then) / span,
            in_flight=sum(lane.in_flight for lane in lanes),
            limit=sum(lane.limit.value for lane in lanes),
            endpoints_up=sum(lane.up for lane in lanes),
            endpoints=len(lanes),
            errors=dict(errors),
            failed=len(outcome.failures),
            seconds=now - self._started,
            eta_s=left / rows_per_s if left is not None and rows_per_s > 0 else None,
            cost=self._price.cost(outcome.prompt_tokens, outcome.completion_tokens) if self._price else None,
            currency=self._price.currency if self._price else "",
        )


def check_patience(lanes: Sequence[Lane], options: EngineOptions, now: float) -> None:
    """Raises `EndpointError` when every endpoint has been down, or failed every request, for too long; a server being
    started is waited for."""

    def gone_since(lane: Lane) -> float:
        if lane.healing:
            return now
        barren = lane.barren_since if lane.streak >= options.breaker_after else None
        return min(since for since in (lane.down_since, barren, now) if since is not None)

    # How long has the last of them been?
    lane = max(lanes, key=gone_since)
    gone_for = now - gone_since(lane)
    patience = options.patience_s if lane.reached else options.first_contact_s
    if gone_for and gone_for >= patience:
        last = lane.last_fault.message if lane.last_fault else "no connection"
        raise EndpointError(
            f"{lane.endpoint.shown_url} has answered no request for {gone_for:.0f} s (last: {last})",
            hint="start it, or correct its address in the profile, and run again; stored answers are kept",
        )
