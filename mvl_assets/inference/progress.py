"""What a run of the engine reports while it goes and when it ends."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that ended without an answer. `error` is a snake_case class, `attempts` counts what was sent."""

    request_key: str
    error: str
    message: str
    attempts: int


@dataclass(slots=True)
class Outcome:
    """Requests are counted once each: `wanted == reused + equal + answered + len(failures)` when a run ends well.

    `reused` had an answer in the log. `equal` repeat a request that was under way or had failed; what became of that
    one holds for them. `sent` counts every attempt.
    """

    wanted: int = 0
    reused: int = 0
    equal: int = 0
    sent: int = 0
    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `rows` are finished: reused, answered durably, or failed. `eta_s` needs a known total.

    `name` is what is asked for, as stage and source. `cost` is what this run's answers cost so far, in `currency`; None
    without a price.
    """

    name: str
    rows: int
    total: int | None
    rows_per_s: float
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float
    in_flight: int
    limit: int
    endpoints_up: int
    endpoints: int
    errors: dict[str, int]
    failed: int
    seconds: float
    eta_s: float | None
    cost: float | None
    currency: str

    def line(self) -> str:
        """One line for a person."""
        rows = f"{self.rows}/{self.total}" if self.total is not None else str(self.rows)
        parts = [
            self.name,
            f"{rows} rows",
            f"{self.rows_per_s:.1f} rows/s",
            f"{self.tokens_per_s:.0f} tokens/s",
            f"{self.in_flight} in flight of {self.limit}",
        ]
        if self.endpoints_up < self.endpoints:
            parts.append(f"waiting for {self.endpoints - self.endpoints_up} of {self.endpoints} endpoints")
        if self.errors:
            parts.append("retried " + ", ".join(f"{name} {n}" for name, n in sorted(self.errors.items())))
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.cost is not None:
            parts.append(f"{self.cost:.2f} {self.currency}")
        if self.eta_s is not None:
            parts.append(f"{dt.timedelta(seconds=round(self.eta_s))} left")
        return " · ".join(parts)
