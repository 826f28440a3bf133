"""The engine's settings, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass

from mvl_assets.inference.request import Request


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Times are seconds. Bounds hold over all endpoints of a run."""

    # Requests read from the iterable and not yet durable; and the bytes of their pictures.
    max_open_requests: int = 4096
    max_image_bytes: int = 256 << 20
    # Attempts whose failure may be the row's own fault; overload and outages don't count.
    max_attempts: int = 5
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0
    # What a kill may cost: the answers of one flush.
    flush_answers: int = 512
    flush_interval_s: float = 1.0
    # Failures in a row, over all requests of an endpoint, before it is asked a tiny question instead of more rows.
    circuit_breaker_threshold: int = 16
    # How long every endpoint may be gone before the run ends with an error; shorter when none ever answered.
    outage_timeout_s: float = 300.0
    initial_outage_timeout_s: float = 30.0
    probe_interval_s: float = 2.0
    # A request may take this long: a base for the queue and the pictures, then its tokens at the slowest bearable rate.
    base_timeout_s: float = 60.0
    min_tokens_per_s: float = 2.0
    # Whether, at the end, requests that hang are sent once more beside themselves: quicker, but both may be charged.
    hedge_requests: bool = True
    # Rows in flight when a server died are asked again in this many groups, each alone on the server; see `quarantine`.
    n_quarantine_groups: int = 8
    # Deaths with nothing else in flight that condemn a row: one may be chance.
    max_solo_crashes: int = 2
    progress_interval_s: float = 2.0

    def compute_timeout_s(self, request: Request) -> float:
        return self.base_timeout_s + request.max_tokens / self.min_tokens_per_s
