"""What a run of the engine reports while it goes and when it ends."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request that ended without an answer. `error` is a snake_case class, `attempts` counts what was sent."""

    request_key: str
    error: str
    message: str
    attempts: int


@dataclass(slots=True)
class RunOutcome:
    """Requests are counted once each: `wanted == reused + equal + answered + len(failures)` when a run ends well.

    `cache_hits` had an answer in the log. `deduplicated` repeat a request that was under way or had failed; what became of that
    one holds for them. `attempts_sent` counts every attempt.
    """

    requested: int = 0
    cache_hits: int = 0
    deduplicated: int = 0
    attempts_sent: int = 0
    answered: int = 0
    failures: list[FailedRequest] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `n_finished` are finished: reused, answered durably, or failed. `eta_s` needs a known total.

    `name` is what is asked for, as stage and source. `cost` is what this run's answers cost so far, in `currency`; None
    without a price.
    """

    name: str
    n_finished: int
    total: int | None
    requests_per_s: float
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float
    in_flight: int
    concurrency_limit: int
    n_endpoints_up: int
    n_endpoints: int
    error_counts: dict[str, int]
    n_failed: int
    elapsed_s: float
    eta_s: float | None
    cost: float | None
    currency: str

    def format_line(self) -> str:
        """One line for a person."""
        finished = f"{self.n_finished}/{self.total}" if self.total is not None else str(self.n_finished)
        parts = [
            self.name,
            f"{finished} rows",
            f"{self.requests_per_s:.1f} rows/s",
            f"{self.tokens_per_s:.0f} tokens/s",
            f"{self.in_flight} in flight of {self.concurrency_limit}",
        ]
        if self.n_endpoints_up < self.n_endpoints:
            parts.append(f"waiting for {self.n_endpoints - self.n_endpoints_up} of {self.n_endpoints} endpoints")
        if self.error_counts:
            parts.append("retried " + ", ".join(f"{name} {n}" for name, n in sorted(self.error_counts.items())))
        if self.n_failed:
            parts.append(f"{self.n_failed} failed")
        if self.cost is not None:
            parts.append(f"{self.cost:.2f} {self.currency}")
        if self.eta_s is not None:
            parts.append(f"{dt.timedelta(seconds=round(self.eta_s))} left")
        return " · ".join(parts)
