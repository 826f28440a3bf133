"""Answers every request of an iterable, durably, whatever the servers do: `answer_all`.

How a request travels: `RequestQueue` takes it from the iterable and skips what the log holds. `ImageLoader` loads its
images. `ReadyQueue` chooses its endpoint, and the `Dispatcher` sends it there; a `FleetMonitor` may change the
endpoints meanwhile. A reply goes to `RequestSettler`, whose writer makes the answer durable; a fault goes to
`FaultHandler`, which fails the request, sends it again, or diagnoses an endpoint that may have crashed and puts the
suspects in `Quarantine`.

To an endpoint with batches none of this applies: `BatchRun` hands the requests over in files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mvl_assets.inference.batches.batch_run import BatchRun
from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.fleet import Fleet
from mvl_assets.inference.images import FetchImages
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Progress, RunOutcome
from mvl_assets.inference.request import Request
from mvl_assets.inference.scheduling.dispatcher import Dispatcher
from mvl_assets.inference.scheduling.fault_handler import FaultHandler
from mvl_assets.inference.scheduling.fleet_monitor import FleetMonitor
from mvl_assets.inference.scheduling.image_loader import ImageLoader
from mvl_assets.inference.scheduling.interrupts import InterruptGuard
from mvl_assets.inference.scheduling.outage import check_outage_timeout
from mvl_assets.inference.scheduling.progress_reporter import ProgressReporter
from mvl_assets.inference.scheduling.quarantine import Quarantine
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from mvl_assets.inference.scheduling.request_queue import RequestQueue
from mvl_assets.inference.scheduling.request_settler import RequestSettler
from mvl_assets.inference.scheduling.run_context import RunContext, RunTasks
from mvl_assets.lake.answers import AnswerLog

if TYPE_CHECKING:
    from mvl_assets.config.profile import Price

TICK_INTERVAL_S = 0.1
LEASE_RENEWAL_INTERVAL_S = 10.0
LOAD_POLL_INTERVAL_S = 2.0


def answer_all(
    requests: Iterable[Request | None],
    *,
    endpoints: Sequence[Endpoint] | Fleet,
    log: AnswerLog,
    fetch_images: FetchImages | None = None,
    run_id: str = "",
    total: int | None = None,
    price: Price | None = None,
    progress_callback: Callable[[Progress], None] | None = None,
    options: EngineOptions | None = None,
) -> RunOutcome:
    """Answer every request that `log` holds no answer for; return when all are answered durably or have failed.

    Takes the log's lease itself (do not hold it), and runs its own event loop, so call it from ordinary code such as a
    Dagster step. A fault of one request never raises: it becomes a `FailedRequest` in the outcome. Whatever is raised,
    and on Ctrl-C, the answers that have arrived are stored first.

    Args:
        requests: Consumed lazily in another thread, which is also the one that uses `log`: the iterable may read it. No
            answer can be stored while the iterable computes: one that skips many rows without a request yields None now
            and then.
        endpoints: Servers of the same model; those of a fleet may change while the run goes on.
        log: Where answers are looked up and stored.
        fetch_images: Returns original bytes by image id; needed as soon as a request holds an image.
        run_id: Stored with the answers.
        total: Number of requests, when known: gives the progress an end.
        price: Gives the progress a cost.
        progress_callback: Called about every two seconds and at the end, from the event loop: it must not block.
        options: Settings of the engine.

    Raises:
        LeaseHeld: Another process writes this log.
        EndpointError: No endpoint can be used.
        LakeError: Answers cannot be stored. Errors of the iterable are raised unchanged.
    """
    if not isinstance(endpoints, Fleet) and not endpoints:
        raise EndpointError("no endpoint to ask", hint="give the model endpoints or serve in the profile")
    reporter = ProgressReporter(f"{log.stage} {log.source}", total, price)

    batch_endpoint = None if isinstance(endpoints, Fleet) or endpoints[0].batch is None else endpoints[0]

    async def run_engine() -> RunOutcome:
        settings = (log, fetch_images, run_id, reporter, progress_callback, options or EngineOptions())
        run = _EngineRun(endpoints, *settings) if batch_endpoint is None else BatchRun(batch_endpoint, *settings)
        interrupts.attach(run.tasks)
        return await run.run(iter(requests))

    with log, InterruptGuard() as interrupts:
        if batch_endpoint is None:
            _require_no_batches(log)
        return asyncio.run(run_engine())


def _require_no_batches(log: AnswerLog) -> None:
    """Refuse to send what a server may have in a batch already.

    Raises:
        EndpointError: There are batches on their way.
    """
    for batch in log.batches.list_batches():
        raise EndpointError(
            f"requests of {log.stage} {log.source} are in a batch at {batch.endpoint}, and would be paid twice",
            hint="give the model `mode: batch` and that address until its batches are done, or give them up: "
            "`mvl batches --forget`",
        )


class _EngineRun:
    """One call of `answer_all`. All but the log, the iterable and loading images happens in one event loop."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint] | Fleet,
        log: AnswerLog,
        fetch_images: FetchImages | None,
        run_id: str,
        reporter: ProgressReporter,
        progress_callback: Callable[[Progress], None] | None,
        options: EngineOptions,
    ) -> None:
        self._log = log
        self._reporter = reporter
        self._progress_callback = progress_callback
        fleet = endpoints if isinstance(endpoints, Fleet) else None
        # What is known of the endpoints before the first of them was seen.
        self._templates = [endpoints.template] if isinstance(endpoints, Fleet) else endpoints
        clients = [EndpointClient(endpoint, options) for endpoint in (self._templates if fleet is None else ())]
        self.tasks = RunTasks()
        self._run = RunContext(options, clients, Transport(), self.tasks)
        ready = ReadyQueue(clients)
        self._monitor = None if fleet is None else FleetMonitor(self._run, fleet, ready, self._dispatch)
        self._loader = None
        if fetch_images is not None:
            max_image_side = min(endpoint.max_image_side for endpoint in self._templates)
            self._loader = ImageLoader(
                fetch_images,
                max_image_side,
                options.max_image_bytes,
                ready.append,
                self._on_progress,
                self._on_unsendable,
            )
        self._queue = RequestQueue(
            ready, log, self._loader, options, self._run.outcome, self.tasks.run_on_log_thread, self._on_progress
        )
        quarantine = Quarantine(options.n_quarantine_groups, options.max_solo_crashes)
        self._settler = RequestSettler(self._run, self._queue, log, run_id)
        fault_handler = FaultHandler(
            self._run,
            ready,
            quarantine,
            self._settler,
            self._dispatch,
            refuse=None if self._monitor is None else self._monitor.refuse,
        )
        self._dispatcher = Dispatcher(
            self._run, self._queue, ready, quarantine, on_reply=self._settler.answer, on_fault=fault_handler.handle
        )

    async def run(self, requests: Iterator[Request | None]) -> RunOutcome:
        started_at = time.monotonic()
        for endpoint in self._templates:
            self._run.transport.get_headers(endpoint)
        try:
            async with self._run.transport:
                try:
                    self.tasks.spawn(self._queue.read_requests(requests))
                    self.tasks.spawn(self._settler.writer.run_flush_loop(self.tasks.run_on_log_thread))
                    self.tasks.spawn(self._run_periodic_tasks())
                    if self._monitor is not None:
                        self.tasks.spawn(self._monitor.run_poll_loop())
                    if self._loader is not None:
                        for _ in range(self._loader.n_loaders):
                            self.tasks.spawn(self._loader.run_loader())
                    await self.tasks.wait_until_finished()
                finally:
                    await self.tasks.cancel_all()
                    await self._settler.writer.flush(self.tasks.run_on_log_thread)
        finally:
            self.tasks.shut_down_log_thread()
        self._run.outcome.elapsed_s = time.monotonic() - started_at
        self._report_progress()
        return self._run.outcome

    def _dispatch(self) -> None:
        self._dispatcher.dispatch()

    def _on_progress(self) -> None:
        self._settler.finish_if_done()
        self._dispatch()

    def _on_unsendable(self, pending: PendingRequest, error: str, message: str) -> None:
        self._settler.fail(pending, error, message)

    def _report_progress(self) -> None:
        if self._progress_callback is not None:
            self._progress_callback(
                self._reporter.build_report(
                    self._run.outcome,
                    [*self._run.clients, *self._run.leaving],
                    self._run.error_counts,
                    self._monitor,
                )
            )

    async def _run_periodic_tasks(self) -> None:
        next_report = next_load_poll = next_renewal = 0.0
        while True:
            now = self.tasks.loop.time()
            if self._run.clients:
                check_outage_timeout(self._run.clients, self._run.options, now)
            elif self._monitor is not None:
                self._monitor.check_outage_timeout(now)
            for client in self._run.clients:
                client.send_heartbeat()
            if now >= next_renewal:
                next_renewal = now + LEASE_RENEWAL_INTERVAL_S
                self.tasks.spawn(self._renew_lease())
            if now >= next_report:
                next_report = now + self._run.options.progress_interval_s
                self._report_progress()
            if now >= next_load_poll:
                next_load_poll = now + LOAD_POLL_INTERVAL_S
                for client in self._run.clients:
                    if client.wants_server_load:
                        self.tasks.spawn(client.poll_server_load(self._run.transport))
            # Requests that wait for a point in time (a cool-down, the quarantine) get their turn.
            self._dispatch()
            await asyncio.sleep(TICK_INTERVAL_S)

    async def _renew_lease(self) -> None:
        """Keep the lease of the answers, also while a slow model gives nothing to store."""
        await self.tasks.run_on_log_thread(self._log.renew)
