"""Progress reports and the outcome of a run of the engine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class RequestOutcome(Enum):
    """The ways a request can end. In a run that succeeds, every request has exactly one of them."""

    CACHE_HIT = "cache_hit"  # The log held its answer.
    DEDUPLICATED = "deduplicated"  # It repeats a request that was under way or had failed, and shares its fate.
    ANSWERED = "answered"
    FAILED = "failed"  # `FailedRequest` says why.


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request that ended without an answer. `error` is a snake_case code, `attempts` says how often it was sent."""

    request_key: str
    error: str
    message: str
    attempts: int


@dataclass(slots=True)
class RunOutcome:
    """Counts of one run, by `RequestOutcome`: `requested == n_finished` when it ends well.

    Attributes:
        requested: Requests read from the iterable.
        attempts_sent: Attempts, repetitions and hedged requests included.
        answered: Requests whose answer is durable.
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

    def count(self, outcome: RequestOutcome) -> int:
        """Return how many requests have ended this way."""
        match outcome:
            case RequestOutcome.CACHE_HIT:
                return self.cache_hits
            case RequestOutcome.DEDUPLICATED:
                return self.deduplicated
            case RequestOutcome.ANSWERED:
                return self.answered
            case RequestOutcome.FAILED:
                return len(self.failures)

    @property
    def n_finished(self) -> int:
        """Requests that have ended, in whatever way."""
        return sum(self.count(outcome) for outcome in RequestOutcome)


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run in progress.

    Attributes:
        name: Stage and source.
        n_finished: Requests that have ended, see `RequestOutcome`.
        endpoint_problems: What is wrong with the endpoints of a fleet, such as one that serves another model.
        tokens_per_s: Of finished answers.
        server_tokens_per_s: What the servers write, answers that are not finished and other runs' included; None where
            they do not say.
        batch_states: Number of batches by state, where requests are handed over in batches.
        n_answered_in_batches: Requests that servers have answered in batches that have not ended.
        eta_s: Seconds left; None without a known total.
        cost: Cost of this run's answers so far, in `currency`; None without a price.
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
    endpoint_problems: tuple[str, ...] = ()
    server_tokens_per_s: float | None = None
    batch_states: Mapping[str, int] = field(default_factory=dict)
    n_answered_in_batches: int = 0

    def format_line(self) -> str:
        """Return the progress as one line of text."""
        finished = f"{self.n_finished}/{self.total}" if self.total is not None else str(self.n_finished)
        parts = [self.name, f"{finished} requests", self.format_figures()]
        if self.eta_s is not None:
            parts.append(f"{dt.timedelta(seconds=round(self.eta_s))} left")
        return " · ".join(parts)

    def format_figures(self) -> str:
        """Return speed, load, faults and cost. Where servers do not count tokens, those of finished answers are."""
        if self.batch_states:
            return " · ".join([self._format_batches(), *self._format_faults_and_cost()])
        tokens_per_s = self.tokens_per_s if self.server_tokens_per_s is None else self.server_tokens_per_s
        parts = [
            f"{self.requests_per_s:.1f} requests/s",
            f"{tokens_per_s:.0f} tokens/s",
            f"{self.in_flight} in flight of {self.concurrency_limit}",
        ]
        if self.n_endpoints_up < self.n_endpoints:
            parts.append(f"waiting for {self.n_endpoints - self.n_endpoints_up} of {self.n_endpoints} endpoints")
        parts += self.endpoint_problems
        return " · ".join([*parts, *self._format_faults_and_cost()])

    def _format_batches(self) -> str:
        states = ", ".join(f"{n} {state}" for state, n in sorted(self.batch_states.items()))
        n_batches = sum(self.batch_states.values())
        answered = f", {self.n_answered_in_batches:,} answered" if self.n_answered_in_batches else ""
        return f"{self.in_flight:,} in {n_batches} batch{'es' if n_batches > 1 else ''} ({states}{answered})"

    def _format_faults_and_cost(self) -> list[str]:
        parts = []
        if self.error_counts:
            parts.append("retried " + ", ".join(f"{name} {n}" for name, n in sorted(self.error_counts.items())))
        if self.n_failed:
            parts.append(f"{self.n_failed} failed")
        if self.cost is not None:
            parts.append(f"{self.cost:.2f} {self.currency}")
        return parts
