"""Answers every request of an iterable, durably, whatever the servers do. `answer_all` is the way in.

How a request travels: the intake takes it from the iterable (skipping what the log already holds) and loads its
pictures, `_dispatch` gives it to the least loaded endpoint, `_run_attempt` asks, the writer makes the answer durable. What
happens to a failed attempt is decided in `_handle_fault`; an endpoint that may have died is looked at in `_diagnose`.

Belongs here: this flow. The parts it is made of lie beside it: `intake` (what is to be asked), `client` (one endpoint),
`limits` (how many at once), `pace` (how long), `shown` (pictures it has), `transport` (HTTP), `retry` (the meaning of
faults), `writer` (commits), `quarantine` (suspects of a server's death).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mvl_assets.errors import MvlError
from mvl_assets.inference.chat_protocol import Reply, build_request_body
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.endpoint_client import Attempt, EndpointClient, PendingRequest
from mvl_assets.inference.faults import FaultScope, RequestFault, compute_backoff_s
from mvl_assets.inference.images import FetchImages
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import FailedRequest, Progress, RunOutcome
from mvl_assets.inference.progress_reporter import ProgressReporter, check_outage_timeout
from mvl_assets.inference.quarantine import Quarantine
from mvl_assets.inference.request import Request
from mvl_assets.inference.request_queue import RequestQueue
from mvl_assets.inference.transport import Transport
from mvl_assets.inference.writer import AnswerWriter
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.schema import Answer

if TYPE_CHECKING:
    from mvl_assets.config.profile import Price

IMAGE_LOADER_THREADS = 2
TICK_INTERVAL_S = 0.1
LEASE_RENEWAL_INTERVAL_S = 10.0
QUEUE_POLL_INTERVAL_S = 2.0


def answer_all(
    requests: Iterable[Request | None],
    *,
    endpoints: Sequence[Endpoint],
    log: AnswerLog,
    fetch_images: FetchImages | None = None,
    run_id: str = "",
    total: int | None = None,
    price: Price | None = None,
    progress_callback: Callable[[Progress], None] | None = None,
    options: EngineOptions | None = None,
) -> RunOutcome:
    """Asks for every request that `log` has no answer for, and returns when all are answered durably or failed.

    Takes the log's lease itself (do not hold it), and runs its own event loop, so call it from ordinary code such as a
    Dagster step. `requests` is consumed lazily, in one other thread, which is also the one that uses `log`: the
    iterable may read it. No answer can be stored while the iterable is at work: one that passes over many rows with
    nothing to ask says None now and then. `fetch_images` fetches original bytes for image ids; needed as soon as a request
    holds a picture. `total`, when known, gives the progress an end, and `price` a sum of money. `progress_callback` is called
    about every two seconds and at the end, from the event loop: it must not block.

    One row's trouble never raises: it becomes a `FailedRequest` in the outcome. Raises `LeaseHeld` when another process
    writes this log, `EndpointError` when no endpoint can be used, the lake's error when answers cannot be stored, and
    whatever the iterable raises; each time, and on Ctrl-C, what had arrived is stored first.
    """
    if not endpoints:
        raise EndpointError("no endpoint to ask", hint="give the model base_urls or serve in the profile")
    reporter = ProgressReporter(f"{log.stage} {log.source}", total, price)
    run = _EngineRun(endpoints, log, fetch_images, run_id, reporter, progress_callback, options or EngineOptions())
    with log:
        return asyncio.run(run.run(iter(requests)))


class _EngineRun:
    """One call of `answer_all`. Everything but the log, the iterable and the pictures happens in one event loop."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        log: AnswerLog,
        fetch_images: FetchImages | None,
        run_id: str,
        reporter: ProgressReporter,
        progress_callback: Callable[[Progress], None] | None,
        options: EngineOptions,
    ) -> None:
        self.options = options
        self.outcome = RunOutcome()
        self._log = log
        self._fetch_images = fetch_images
        self._run_id = run_id
        self._reporter = reporter
        self._progress_callback = progress_callback
        self._clients = [EndpointClient(endpoint) for endpoint in endpoints]
        self._rng = random.Random()
        self._transport = Transport()
        self._error_counts: Counter[str] = Counter()
        self._quarantine = Quarantine(options.n_quarantine_groups, options.max_solo_crashes)
        self._tasks: set[asyncio.Task[None]] = set()
        # One thread for the log and for the iterable, which may read the same log: a Lance table open in this process
        # must not be read and committed to at the same time.
        self._log_thread = ThreadPoolExecutor(1, "answers")
        self._stopping = False

    # -- the run as a whole ----------------------------------------------------------------------------------------

    async def run(self, requests: Iterator[Request | None]) -> RunOutcome:
        started_at = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._handle_loop_error)
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._request_queue = RequestQueue(
            self._log,
            self._fetch_images,
            min(client.endpoint.max_image_side for client in self._clients),
            self.options,
            self.outcome,
            self._run_on_log_thread,
            self._on_progress,
            self._fail,
        )
        self._writer = AnswerWriter(
            self._log.append, self._on_durable, self.options.flush_answers, self.options.flush_interval_s
        )
        for lane in self._clients:
            self._transport.get_headers(lane.endpoint)
        try:
            async with self._transport:
                try:
                    self._spawn(self._request_queue.read_requests(requests))
                    self._spawn(self._writer.run_flush_loop(self._run_on_log_thread))
                    self._spawn(self._run_periodic_tasks())
                    for _ in range(IMAGE_LOADER_THREADS if self._fetch_images else 0):
                        self._spawn(self._request_queue.load_pending_images())
                    await self._finished
                finally:
                    self._stopping = True
                    for task in self._tasks:
                        task.cancel()
                    await asyncio.gather(*self._tasks, return_exceptions=True)
                    await self._writer.flush(self._run_on_log_thread)
        finally:
            self._log_thread.shutdown(wait=True)
        self.outcome.elapsed_s = time.monotonic() - started_at
        if self._progress_callback is not None:
            self._progress_callback(self._reporter.build_report(self.outcome, self._clients, self._error_counts))
        return self.outcome

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._abort(error)

    def _abort(self, error: BaseException) -> None:
        if not self._finished.done():
            self._finished.set_exception(error)

    def _finish_if_done(self) -> None:
        if self._request_queue.all_read and not self._request_queue.n_open and not self._finished.done():
            self._finished.set_result(None)

    def _on_progress(self) -> None:
        self._finish_if_done()
        self._dispatch()

    def _run_on_log_thread(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return self._loop.run_in_executor(self._log_thread, function, *arguments)

    # -- sending ---------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Starts every request that may start now. Called whenever something changes."""
        if self._stopping:
            return
        now = self._loop.time()
        for client in self._clients:
            client.demote_stragglers()
        while (assignment := self._quarantine.pop_next_group(self._clients, now)) is not None:
            client, group = assignment
            for pending in group:
                self._start_attempt(pending, client)
        while self._request_queue.ready:
            free_clients = [lane for lane in self._clients if lane.is_free(now)]
            if not free_clients:
                break
            pending = self._request_queue.ready.popleft()
            if pending.settled or any(
                lane.supports_image_cache and lane.image_cache.defer(pending) for lane in self._clients
            ):
                continue
            clients_with_images = [
                lane for lane in free_clients if pending.images and lane.image_cache.contains(pending.request.image_ids)
            ]
            self._start_attempt(pending, min(clients_with_images or free_clients, key=lambda lane: lane.load))
        if self._request_queue.is_drained and not self._quarantine and self.options.hedge_requests:
            self._hedge_stragglers(now)

    def _hedge_stragglers(self, now: float) -> None:
        """At the end, when the servers have room, nobody waits for a few requests that hang: they are asked beside."""
        for pending in [item for client in self._clients for item in client.list_hedge_candidates(now)]:
            free_clients = [lane for lane in self._clients if lane.is_free(now)]
            if free_clients:
                self._start_attempt(pending, min(free_clients, key=lambda lane: lane.load))

    def _start_attempt(self, pending: PendingRequest, client: EndpointClient) -> None:
        attempt = Attempt(pending, self._loop.time())
        pending.attempts.append(attempt)
        pending.attempts_sent += 1
        self.outcome.attempts_sent += 1
        client.on_sent(attempt)
        if pending.images and client.supports_image_cache and not pending.inline_images:
            attempt.cached_image_ids = client.image_cache.mark_sent(pending.images)
        attempt.task = self._spawn(self._run_attempt(attempt, client))
        # A task that is cancelled before its first step never comes to its own end.
        attempt.task.add_done_callback(lambda _: self._detach_attempt(attempt, client, None))

    async def _run_attempt(self, attempt: Attempt, client: EndpointClient) -> None:
        pending, request = attempt.pending, attempt.pending.request
        max_timeout_s = self.options.compute_timeout_s(request)
        timeout_s = client.latency.compute_timeout_s(max_timeout_s, pending.client_timeouts)
        body = build_request_body(request, client.endpoint, pending.images, attempt.cached_image_ids)
        result: Reply | RequestFault | None = None
        try:
            result = await self._transport.send_request(client.endpoint, body, timeout_s)
        finally:
            now = self._loop.time()
            if isinstance(result, Reply):
                client.on_success(attempt, result.completion_tokens, now)
                client.canary_body = client.canary_body or build_request_body(request, client.endpoint, pending.images)
            self._detach_attempt(attempt, client, result)
        if pending.settled:
            return
        if isinstance(result, Reply):
            self._handle_reply(pending, result, now - attempt.sent_at)
        else:
            if result.error == "timeout" and timeout_s < max_timeout_s:
                # Given up early on the word of other replies: not held against the row.
                pending.client_timeouts += 1
                result = replace(result, scope=FaultScope.ENDPOINT)
            if result.scope is FaultScope.REQUEST and attempt.cached_image_ids is not None:
                # Perhaps it has forgotten a picture; whatever it is, the bytes alone will show it.
                self._error_counts["image_refused"] += 1
                pending.inline_images = True
                self._request_queue.ready.appendleft(pending)
            else:
                self._handle_fault(pending, client, result, attempt.sent_at)
        self._dispatch()

    def _detach_attempt(self, attempt: Attempt, client: EndpointClient, result: Reply | RequestFault | None) -> None:
        """The attempt holds nothing any more. Lets go what waited for its pictures. Called twice, it counts once."""
        if attempt not in attempt.pending.attempts:
            return
        attempt.pending.attempts.remove(attempt)
        client.on_finished(attempt)
        if attempt.cached_image_ids is not None:
            image_ids = attempt.pending.request.image_ids
            if isinstance(result, Reply):
                deferred = client.image_cache.on_hit(image_ids)
            else:
                deferred = client.image_cache.on_miss(
                    image_ids, rejected=result is not None and result.scope is FaultScope.REQUEST
                )
            self._request_queue.ready.extendleft(reversed(deferred))

    def _handle_reply(self, pending: PendingRequest, reply: Reply, latency_s: float) -> None:
        request = pending.request
        self.outcome.prompt_tokens += reply.prompt_tokens
        self.outcome.completion_tokens += reply.completion_tokens
        self._settle(pending)
        self._writer.add(
            Answer(
                request_key=request.key,
                source=self._log.source,
                stage=self._log.stage,
                model=request.model.name,
                model_revision=request.model.revision,
                prompt=request.prompt_name,
                prompt_hash=request.prompt_hash,
                text=reply.text,
                finish_reason=reply.finish_reason,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                first_token_logprobs=reply.first_token_logprobs,
                latency_s=latency_s,
                attempts=pending.attempts_sent,
                run_id=self._run_id,
                created_at=dt.datetime.now(dt.UTC),
            )
        )

    def _on_durable(self, answers: Sequence[Answer]) -> None:
        self.outcome.answered += len(answers)
        self._request_queue.mark_durable(answer.request_key for answer in answers)

    def _settle(self, pending: PendingRequest) -> None:
        """The item is answered or has failed."""
        pending.settled = True
        for attempt in pending.attempts:
            if attempt.task is not None:
                attempt.task.cancel()
        self._request_queue.mark_settled(pending)
        self._finish_if_done()

    # -- failing ---------------------------------------------------------------------------------------------------

    def _handle_fault(
        self, pending: PendingRequest, client: EndpointClient, fault: RequestFault, sent_at: float
    ) -> None:
        now = self._loop.time()
        self._error_counts[fault.error] += 1
        if fault.scope is FaultScope.REQUEST:
            self._fail(pending, fault.error, fault.message)
            return
        if fault.scope is FaultScope.CONFIG:
            self._spawn(self._classify_config_fault(pending, client, fault))
            return
        client.on_failure(fault, sent_at, now)
        if client.rejects_permanently(pending, fault, self.options, now):
            self._fail(pending, fault.error, fault.message)
            return
        if client.cooldown_until > now:
            self._loop.call_at(client.cooldown_until, self._dispatch)
        if pending.attempts:
            pass  # another attempt is under way, and decides
        elif fault.server_may_have_crashed:
            client.crash_suspects.append((pending, fault))
        else:
            self._schedule_retry(pending, fault, client)
        breaker_open = client.consecutive_failures >= self.options.circuit_breaker_threshold
        if (
            fault.server_may_have_crashed or fault.error == "no_connection" or breaker_open
        ) and client.health_check_task is None:
            client.health_check_task = self._spawn(self._diagnose(client))

    async def _classify_config_fault(
        self, pending: PendingRequest, client: EndpointClient, fault: RequestFault
    ) -> None:
        """Whether an endpoint refuses everything, which the tiny question tells, or this row: for what it says, or what
        it would cost."""
        probe_fault = await self._transport.probe(client.endpoint)
        if probe_fault is None or probe_fault.scope is not FaultScope.CONFIG:
            if not pending.settled and not pending.attempts:
                self._schedule_retry(pending, replace(fault, scope=FaultScope.UNKNOWN), client)
            return
        self._abort(
            EndpointError(
                f"{client.endpoint.redacted_url} refuses every request for {client.endpoint.model}: {fault.message}",
                hint="check the address, the model's name and the key in the profile; stored answers are kept",
            )
        )
        self._fail(pending, fault.error, fault.message)

    async def _diagnose(self, client: EndpointClient) -> None:
        """Asks the endpoint how it is; waits for it when it is down; decides what becomes of its suspects."""
        try:
            healthy = await self._transport.is_healthy(client.endpoint)
            if not healthy or client.consecutive_failures >= self.options.circuit_breaker_threshold:
                client.down_since = self._loop.time()
                if not healthy:
                    client.crashes += 1
                try:
                    await client.wait_for_recovery(self._transport, self.options, self._rng)
                except MvlError as error:
                    # The others go on without it; its suspects move to them.
                    if not any(other.is_up for other in self._clients):
                        raise
                    client.last_fault = RequestFault("server_start_failed", str(error), FaultScope.ENDPOINT)
                    self._error_counts["server_start_failed"] += 1
        finally:
            client.health_check_task = None
        suspects, client.crash_suspects = client.crash_suspects, []
        if healthy:
            for pending, fault in suspects:
                self._schedule_retry(pending, fault, client)
        else:
            for pending in self._quarantine.add_suspects(client, [item for item, _ in suspects]):
                self._fail(pending, "killed_server", "the server died each time it held this request alone")
        self._dispatch()

    def _schedule_retry(self, pending: PendingRequest, fault: RequestFault, client: EndpointClient) -> None:
        # In a storm that nothing has been proven against, it is not the row's fault.
        if fault.scope is FaultScope.UNKNOWN and client.consecutive_failures < self.options.circuit_breaker_threshold:
            pending.row_failures += 1
            if pending.row_failures >= self.options.max_attempts:
                self._fail(pending, fault.error, fault.message)
                return
        delay_s = compute_backoff_s(
            pending.attempts_sent,
            client.compute_backoff_base_s(self.options.backoff_base_s),
            self.options.backoff_cap_s,
            self._rng,
        )
        delay_s = max(delay_s, fault.retry_after_s or 0.0)
        self._loop.call_later(delay_s, self._requeue, pending)

    def _requeue(self, pending: PendingRequest) -> None:
        self._request_queue.ready.append(pending)
        self._dispatch()

    def _fail(self, pending: PendingRequest, error: str, message: str) -> None:
        request_key = pending.request.key
        self.outcome.failures.append(FailedRequest(request_key, error, message, pending.attempts_sent))
        self._request_queue.mark_failed(request_key)
        self._settle(pending)

    # -- watching --------------------------------------------------------------------------------------------------

    async def _run_periodic_tasks(self) -> None:
        next_report = next_queue_poll = next_renewal = 0.0
        while True:
            now = self._loop.time()
            check_outage_timeout(self._clients, self.options, now)
            for client in self._clients:
                client.send_heartbeat()
            if now >= next_renewal:
                next_renewal = now + LEASE_RENEWAL_INTERVAL_S
                self._spawn(self._renew_lease())
            if self._progress_callback is not None and now >= next_report:
                next_report = now + self.options.progress_interval_s
                self._progress_callback(self._reporter.build_report(self.outcome, self._clients, self._error_counts))
            if now >= next_queue_poll:
                next_queue_poll = now + QUEUE_POLL_INTERVAL_S
                for client in self._clients:
                    if client.is_up and client.has_responded and client.reports_queue is not False:
                        self._spawn(client.poll_queue_length(self._transport))
            # Whatever waits for a time to pass (a rest, a quarantine's patience) gets its turn.
            self._dispatch()
            await asyncio.sleep(TICK_INTERVAL_S)

    async def _renew_lease(self) -> None:
        """Keeps the lease of the answers, also while a slow model gives nothing to store."""
        await self._run_on_log_thread(self._log.renew)

    def _handle_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An interrupt that a signal handler raised inside a callback ends the run; the loop would only log it."""
        error = context.get("exception")
        if error is not None and not isinstance(error, Exception):
            self._abort(error)
        else:
            loop.default_exception_handler(context)
