"""The engine's settings, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass

from mvl_assets.inference.request import Request


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Settings of one run. Times are in seconds; bounds hold over all endpoints of the run."""

    # Requests read from the iterable and not yet durable; and the bytes of their images.
    max_open_requests: int = 4096
    max_image_bytes: int = 256 << 20
    # Attempts whose failure may be the request's own fault; overload and outages do not count.
    max_attempts: int = 5
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0
    # What a kill may cost: the answers of one flush.
    flush_answers: int = 512
    flush_interval_s: float = 1.0
    # Circuit breaker: failures in a row, over all requests of an endpoint, before it is probed instead of sent more.
    circuit_breaker_threshold: int = 16
    # How long every endpoint may be down before the run ends with an error; shorter when none ever answered.
    outage_timeout_s: float = 300.0
    initial_outage_timeout_s: float = 30.0
    probe_interval_s: float = 2.0
    # A request may take this long: a base for the queue and the images, then its tokens at the slowest tolerable rate.
    base_timeout_s: float = 60.0
    min_tokens_per_s: float = 2.0
    # Whether requests that hang at the end are sent once more (hedged): quicker, but both may be charged.
    hedge_requests: bool = True
    # Requests in flight at a crash are sent again in this many groups, each alone on the server; see `quarantine`.
    n_quarantine_groups: int = 8
    # Crashes with nothing else in flight that make a request the culprit: one may be chance.
    max_solo_crashes: int = 2
    progress_interval_s: float = 2.0

    def compute_timeout_s(self, request: Request) -> float:
        """Return the longest time, in seconds, that one attempt may take."""
        return self.base_timeout_s + request.max_tokens / self.min_tokens_per_s
