"""Progress of the shards of one run, as one report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from mvl_assets.inference.progress import Progress
from mvl_assets.model_stage.loop import ProgressCallback


class MergedProgress:
    """Adds up the newest report of each shard; those that have not begun count with their estimated requests.

    Args:
        callback: Called with the sum at every report; None to do nothing.
        estimated_requests: Requests by shard.
    """

    def __init__(self, callback: ProgressCallback | None, estimated_requests: Mapping[str, int]) -> None:
        self._callback = callback
        self._estimated_requests = estimated_requests
        self._reports: dict[str, Progress] = {}
        self._started_at = time.monotonic()

    def add(self, shard: str, report: Progress) -> None:
        """Take a shard's report."""
        self._reports[shard] = report
        if self._callback is not None:
            self._callback(self.sum_reports())

    def finish(self, shard: str) -> None:
        """Take a shard's last report as its result: it has no speed and no requests in flight any more."""
        if shard in self._reports:
            self._reports[shard] = replace(
                self._reports[shard],
                requests_per_s=0.0,
                tokens_per_s=0.0,
                in_flight=0,
                concurrency_limit=0,
                n_endpoints=0,
                n_endpoints_up=0,
                batch_states={},
                n_answered_in_batches=0,
            )

    def sum_reports(self) -> Progress:
        """Return the sum of the newest reports, of which there is at least one."""
        reports = list(self._reports.values())
        n_finished = sum(report.n_finished for report in reports)
        total = sum(
            report.total if report.total is not None else self._estimated_requests[shard]
            for shard, report in self._reports.items()
        ) + sum(n for shard, n in self._estimated_requests.items() if shard not in self._reports)
        requests_per_s = sum(report.requests_per_s for report in reports)
        n_endpoints = max(report.n_endpoints for report in reports)
        error_counts: Counter[str] = Counter()
        batch_states: Counter[str] = Counter()
        for report in reports:
            error_counts.update(report.error_counts)
            batch_states.update(report.batch_states)
        costs = [report.cost for report in reports if report.cost is not None]
        return Progress(
            name=reports[0].name,
            n_finished=n_finished,
            total=total,
            requests_per_s=requests_per_s,
            prompt_tokens=sum(report.prompt_tokens for report in reports),
            completion_tokens=sum(report.completion_tokens for report in reports),
            tokens_per_s=sum(report.tokens_per_s for report in reports),
            in_flight=sum(report.in_flight for report in reports),
            concurrency_limit=sum(report.concurrency_limit for report in reports),
            n_endpoints_up=min((report.n_endpoints_up for report in reports if report.n_endpoints), default=0),
            n_endpoints=n_endpoints,
            error_counts=dict(error_counts),
            n_failed=sum(report.n_failed for report in reports),
            elapsed_s=time.monotonic() - self._started_at,
            eta_s=(total - n_finished) / requests_per_s if requests_per_s > 0 else None,
            cost=sum(costs) if costs else None,
            currency=reports[0].currency,
            batch_states=dict(batch_states),
            n_answered_in_batches=sum(report.n_answered_in_batches for report in reports),
        )
