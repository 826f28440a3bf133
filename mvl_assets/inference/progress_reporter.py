"""Watching a run: how fast it goes, and when waiting for its endpoints has gone on long enough."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mvl_assets.inference.endpoint import EndpointError
from mvl_assets.inference.endpoint_client import EndpointClient
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Progress, RunOutcome

if TYPE_CHECKING:
    from mvl_assets.config.profile import Price

# Speed is measured over the last so many reports.
RATE_WINDOW_REPORTS = 6


class ProgressReporter:
    """Makes one run's progress reports. `total` is the number of requests, when it is known."""

    def __init__(self, name: str, total: int | None, price: Price | None) -> None:
        self._name = name
        self._total = total
        # A price of nothing is none: a model of one's own has no price per token.
        self._price = price if price is not None and price.compute_cost(1_000_000, 1_000_000) else None
        self._started_at = time.monotonic()
        self._readings: deque[tuple[float, int, int]] = deque(maxlen=RATE_WINDOW_REPORTS)

    def build_report(
        self, outcome: RunOutcome, clients: Sequence[EndpointClient], error_counts: Mapping[str, int]
    ) -> Progress:
        n_finished = outcome.cache_hits + outcome.deduplicated + outcome.answered + len(outcome.failures)
        now = time.monotonic()
        self._readings.append((now, n_finished, outcome.completion_tokens))
        oldest_at, oldest_finished, oldest_tokens = self._readings[0]
        span_s = max(now - oldest_at, 1e-9)
        requests_per_s = (n_finished - oldest_finished) / span_s
        remaining = None if self._total is None else max(0, self._total - n_finished)
        return Progress(
            name=self._name,
            n_finished=n_finished,
            total=self._total,
            requests_per_s=requests_per_s,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            tokens_per_s=(outcome.completion_tokens - oldest_tokens) / span_s,
            in_flight=sum(client.in_flight for client in clients),
            concurrency_limit=sum(lane.limit.value for lane in clients),
            n_endpoints_up=sum(lane.is_up for lane in clients),
            n_endpoints=len(clients),
            error_counts=dict(error_counts),
            n_failed=len(outcome.failures),
            elapsed_s=now - self._started_at,
            eta_s=remaining / requests_per_s if remaining is not None and requests_per_s > 0 else None,
            cost=self._price.compute_cost(outcome.prompt_tokens, outcome.completion_tokens) if self._price else None,
            currency=self._price.currency if self._price else "",
        )


def check_outage_timeout(clients: Sequence[EndpointClient], options: EngineOptions, now: float) -> None:
    """Raises `EndpointError` when every endpoint has been down, or failed every request, for too long; a server being
    started is waited for."""

    def compute_down_since(client: EndpointClient) -> float:
        if client.restarting:
            return now
        no_success_since = (
            client.no_success_since if client.consecutive_failures >= options.circuit_breaker_threshold else None
        )
        return min(since for since in (client.down_since, no_success_since, now) if since is not None)

    # How long has the last of them been?
    client = max(clients, key=compute_down_since)
    outage_s = now - compute_down_since(client)
    timeout_s = options.outage_timeout_s if client.has_responded else options.initial_outage_timeout_s
    if outage_s and outage_s >= timeout_s:
        last_message = client.last_fault.message if client.last_fault else "no connection"
        raise EndpointError(
            f"{client.endpoint.redacted_url} has answered no request for {outage_s:.0f} s (last: {last_message})",
            hint="start it, or correct its address in the profile, and run again; stored answers are kept",
        )
