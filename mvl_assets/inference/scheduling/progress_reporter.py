"""Progress reports of a run: requests done, speed, cost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.progress import Progress, RunOutcome
from mvl_assets.inference.scheduling.fleet_monitor import FleetMonitor

if TYPE_CHECKING:
    from mvl_assets.config.profile import Price

# Speed is measured over this number of reports.
RATE_WINDOW_REPORTS = 6


class ProgressReporter:
    """Builds the progress reports of one run. `total` is the number of requests, when it is known."""

    def __init__(self, name: str, total: int | None, price: Price | None) -> None:
        self._name = name
        self._total = total
        # A price of 0 counts as none: a local model has no price per token.
        self._price = price if price is not None and price.compute_cost(1_000_000, 1_000_000) else None
        self._started_at = time.monotonic()
        self._readings: deque[tuple[float, int, int]] = deque(maxlen=RATE_WINDOW_REPORTS)

    def build_batch_report(
        self,
        outcome: RunOutcome,
        error_counts: Mapping[str, int],
        batch_states: Mapping[str, int],
        *,
        n_in_batches: int,
        n_answered_in_batches: int,
    ) -> Progress:
        """Return the present state of a run whose requests are handed over in batches."""
        return replace(
            self.build_report(outcome, (), error_counts),
            in_flight=n_in_batches,
            concurrency_limit=n_in_batches,
            batch_states=batch_states,
            n_answered_in_batches=n_answered_in_batches,
        )

    def build_report(
        self,
        outcome: RunOutcome,
        clients: Sequence[EndpointClient],
        error_counts: Mapping[str, int],
        monitor: FleetMonitor | None = None,
    ) -> Progress:
        """Return the present state of the run; speeds are of the last few reports."""
        n_finished = outcome.n_finished
        now = time.monotonic()
        self._readings.append((now, n_finished, outcome.completion_tokens))
        oldest_at, oldest_finished, oldest_tokens = self._readings[0]
        span_s = max(now - oldest_at, 1e-9)
        requests_per_s = (n_finished - oldest_finished) / span_s
        speeds = (client.generated_tokens_per_s for client in clients if client.state.is_up and not client.has_left)
        server_speeds = [speed for speed in speeds if speed is not None]
        remaining = None if self._total is None else max(0, self._total - n_finished)
        return Progress(
            name=self._name,
            n_finished=n_finished,
            total=self._total,
            requests_per_s=requests_per_s,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            tokens_per_s=(outcome.completion_tokens - oldest_tokens) / span_s,
            server_tokens_per_s=sum(server_speeds) if server_speeds else None,
            in_flight=sum(client.in_flight for client in clients),
            concurrency_limit=sum(client.limit.value for client in clients if not client.has_left),
            n_endpoints_up=sum(client.state.is_up and not client.has_left for client in clients),
            n_endpoints=len(clients) if monitor is None else monitor.n_endpoints,
            error_counts=dict(error_counts),
            n_failed=len(outcome.failures),
            elapsed_s=now - self._started_at,
            eta_s=remaining / requests_per_s if remaining is not None and requests_per_s > 0 else None,
            cost=self._price.compute_cost(outcome.prompt_tokens, outcome.completion_tokens) if self._price else None,
            currency=self._price.currency if self._price else "",
            endpoint_problems=() if monitor is None else tuple(monitor.describe_problems()),
        )
