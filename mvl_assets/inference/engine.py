"""Answers every request of an iterable, durably, whatever the servers do. `answer_all` is the way in.

How a request travels: the intake takes it from the iterable (skipping what the log already holds) and loads its
pictures, `_pump` gives it to the least loaded endpoint, `_attempt` asks, the writer makes the answer durable. What
happens to a failed attempt is decided in `_failed`; an endpoint that may have died is looked at in `_examine`.

Belongs here: this flow. The parts it is made of lie beside it: `intake` (what is to be asked), `lane` (one endpoint),
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
from mvl_assets.inference.chat_protocol import Reply, encode
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.endpoint_client import Attempt, Item, Lane
from mvl_assets.inference.faults import Blame, Fault, backoff_s
from mvl_assets.inference.images import FetchPictures
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Failure, Outcome, Progress
from mvl_assets.inference.progress_reporter import Reporter, check_patience
from mvl_assets.inference.quarantine import Quarantine
from mvl_assets.inference.request import Request
from mvl_assets.inference.request_queue import Intake
from mvl_assets.inference.transport import Transport
from mvl_assets.inference.writer import AnswerWriter
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.schema import Answer

if TYPE_CHECKING:
    from mvl_assets.config.profile import Price

PICTURE_THREADS = 2
TICK_S = 0.1
RENEW_EVERY_S = 10.0
QUEUE_EVERY_S = 2.0


def answer_all(
    requests: Iterable[Request | None],
    *,
    endpoints: Sequence[Endpoint],
    log: AnswerLog,
    pictures: FetchPictures | None = None,
    run_id: str = "",
    total: int | None = None,
    price: Price | None = None,
    progress: Callable[[Progress], None] | None = None,
    options: EngineOptions | None = None,
) -> Outcome:
    """Asks for every request that `log` has no answer for, and returns when all are answered durably or failed.

    Takes the log's lease itself (do not hold it), and runs its own event loop, so call it from ordinary code such as a
    Dagster step. `requests` is consumed lazily, in one other thread, which is also the one that uses `log`: the
    iterable may read it. No answer can be stored while the iterable is at work: one that passes over many rows with
    nothing to ask says None now and then. `pictures` fetches original bytes for image ids; needed as soon as a request
    holds a picture. `total`, when known, gives the progress an end, and `price` a sum of money. `progress` is called
    about every two seconds and at the end, from the event loop: it must not block.

    One row's trouble never raises: it becomes a `Failure` in the outcome. Raises `LeaseHeld` when another process
    writes this log, `EndpointError` when no endpoint can be used, the lake's error when answers cannot be stored, and
    whatever the iterable raises; each time, and on Ctrl-C, what had arrived is stored first.
    """
    if not endpoints:
        raise EndpointError("no endpoint to ask", hint="give the model base_urls or serve in the profile")
    reporter = Reporter(f"{log.stage} {log.source}", total, price)
    run = _Run(endpoints, log, pictures, run_id, reporter, progress, options or EngineOptions())
    with log:
        return asyncio.run(run.go(iter(requests)))


class _Run:
    """One call of `answer_all`. Everything but the log, the iterable and the pictures happens in one event loop."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        log: AnswerLog,
        fetch: FetchPictures | None,
        run_id: str,
        reporter: Reporter,
        progress: Callable[[Progress], None] | None,
        options: EngineOptions,
    ) -> None:
        self.options = options
        self.outcome = Outcome()
        self._log = log
        self._fetch = fetch
        self._run_id = run_id
        self._reporter = reporter
        self._progress = progress
        self._lanes = [Lane(endpoint) for endpoint in endpoints]
        self._rng = random.Random()
        self._transport = Transport()
        self._errors: Counter[str] = Counter()
        self._quarantine = Quarantine(options.quarantine_groups, options.deaths_to_fail)
        self._tasks: set[asyncio.Task[None]] = set()
        # One thread for the log and for the iterable, which may read the same log: a Lance table open in this process
        # must not be read and committed to at the same time.
        self._log_thread = ThreadPoolExecutor(1, "answers")
        self._stopping = False

    # -- the run as a whole ----------------------------------------------------------------------------------------

    async def go(self, requests: Iterator[Request | None]) -> Outcome:
        started = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._loop_error)
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._intake = Intake(
            self._log,
            self._fetch,
            min(lane.endpoint.max_side for lane in self._lanes),
            self.options,
            self.outcome,
            self._in_log_thread,
            self._go_on,
            self._fail,
        )
        self._writer = AnswerWriter(self._log.append, self._durable, self.options.flush_rows, self.options.flush_s)
        for lane in self._lanes:
            self._transport.headers(lane.endpoint)
        try:
            async with self._transport:
                try:
                    self._spawn(self._intake.read(requests))
                    self._spawn(self._writer.run(self._in_log_thread))
                    self._spawn(self._tick())
                    for _ in range(PICTURE_THREADS if self._fetch else 0):
                        self._spawn(self._intake.load())
                    await self._finished
                finally:
                    self._stopping = True
                    for task in self._tasks:
                        task.cancel()
                    await asyncio.gather(*self._tasks, return_exceptions=True)
                    await self._writer.flush(self._in_log_thread)
        finally:
            self._log_thread.shutdown(wait=True)
        self.outcome.seconds = time.monotonic() - started
        if self._progress is not None:
            self._progress(self._reporter.report(self.outcome, self._lanes, self._errors))
        return self.outcome

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._abort(error)

    def _abort(self, error: BaseException) -> None:
        if not self._finished.done():
            self._finished.set_exception(error)

    def _finish_if_done(self) -> None:
        if self._intake.all_read and not self._intake.unfinished and not self._finished.done():
            self._finished.set_result(None)

    def _go_on(self) -> None:
        self._finish_if_done()
        self._pump()

    def _in_log_thread(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return self._loop.run_in_executor(self._log_thread, function, *arguments)

    # -- sending ---------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Starts every request that may start now. Called whenever something changes."""
        if self._stopping:
            return
        now = self._loop.time()
        for lane in self._lanes:
            lane.look_for_late()
        while (turn := self._quarantine.next_group(self._lanes, now)) is not None:
            lane, group = turn
            for item in group:
                self._start(item, lane)
        while self._intake.ready:
            free = [lane for lane in self._lanes if lane.is_free(now)]
            if not free:
                break
            item = self._intake.ready.popleft()
            if item.done or any(lane.takes_names and lane.shown.wait(item) for lane in self._lanes):
                continue
            near = [lane for lane in free if item.pictures and lane.shown.has(item.request.images)]
            self._start(item, min(near or free, key=lambda lane: lane.load))
        if self._intake.exhausted and not self._quarantine and self.options.ask_beside:
            self._hurry(now)

    def _hurry(self, now: float) -> None:
        """At the end, when the servers have room, nobody waits for a few requests that hang: they are asked beside."""
        for item in [item for lane in self._lanes for item in lane.worth_asking_beside(now)]:
            free = [lane for lane in self._lanes if lane.is_free(now)]
            if free:
                self._start(item, min(free, key=lambda lane: lane.load))

    def _start(self, item: Item, lane: Lane) -> None:
        attempt = Attempt(item, self._loop.time())
        item.attempts.append(attempt)
        item.sent += 1
        self.outcome.sent += 1
        lane.sent(attempt)
        if item.pictures and lane.takes_names and not item.plain:
            attempt.by_name = lane.shown.send(item.pictures)
        attempt.task = self._spawn(self._attempt(attempt, lane))
        # A task that is cancelled before its first step never comes to its own end.
        attempt.task.add_done_callback(lambda _: self._left(attempt, lane, None))

    async def _attempt(self, attempt: Attempt, lane: Lane) -> None:
        item, request = attempt.item, attempt.item.request
        longest_s = self.options.timeout_s(request)
        timeout_s = lane.pace.timeout_s(longest_s, item.given_up)
        body = encode(request, lane.endpoint, item.pictures, attempt.by_name)
        result: Reply | Fault | None = None
        try:
            result = await self._transport.ask(lane.endpoint, body, timeout_s)
        finally:
            now = self._loop.time()
            if isinstance(result, Reply):
                lane.succeeded(attempt, result.completion_tokens, now)
                lane.proof = lane.proof or encode(request, lane.endpoint, item.pictures)
            self._left(attempt, lane, result)
        if item.done:
            return
        if isinstance(result, Reply):
            self._answered(item, result, now - attempt.sent_at)
        else:
            if result.error == "timeout" and timeout_s < longest_s:
                # Given up early on the word of other replies: not held against the row.
                item.given_up += 1
                result = replace(result, blame=Blame.ENDPOINT)
            if result.blame is Blame.ROW and attempt.by_name is not None:
                # Perhaps it has forgotten a picture; whatever it is, the bytes alone will show it.
                self._errors["picture_refused"] += 1
                item.plain = True
                self._intake.ready.appendleft(item)
            else:
                self._failed(item, lane, result, attempt.sent_at)
        self._pump()

    def _left(self, attempt: Attempt, lane: Lane, result: Reply | Fault | None) -> None:
        """The attempt holds nothing any more. Lets go what waited for its pictures. Called twice, it counts once."""
        if attempt not in attempt.item.attempts:
            return
        attempt.item.attempts.remove(attempt)
        lane.ended(attempt)
        if attempt.by_name is not None:
            images = attempt.item.request.images
            if isinstance(result, Reply):
                waited = lane.shown.arrived(images)
            else:
                waited = lane.shown.failed(images, refused=result is not None and result.blame is Blame.ROW)
            self._intake.ready.extendleft(reversed(waited))

    def _answered(self, item: Item, reply: Reply, latency_s: float) -> None:
        request = item.request
        self.outcome.prompt_tokens += reply.prompt_tokens
        self.outcome.completion_tokens += reply.completion_tokens
        self._release(item)
        self._writer.add(
            Answer(
                request_key=request.key,
                source=self._log.source,
                stage=self._log.stage,
                model=request.model.name,
                model_revision=request.model.revision,
                prompt=request.prompt,
                prompt_hash=request.prompt_hash,
                text=reply.text,
                finish_reason=reply.finish_reason,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                first_logprobs=reply.first_logprobs,
                latency_s=latency_s,
                attempts=item.sent,
                run_id=self._run_id,
                created_at=dt.datetime.now(dt.UTC),
            )
        )

    def _durable(self, answers: Sequence[Answer]) -> None:
        self.outcome.answered += len(answers)
        self._intake.durable(answer.request_key for answer in answers)

    def _release(self, item: Item) -> None:
        """The item is answered or has failed."""
        item.done = True
        for attempt in item.attempts:
            if attempt.task is not None:
                attempt.task.cancel()
        self._intake.finished(item)
        self._finish_if_done()

    # -- failing ---------------------------------------------------------------------------------------------------

    def _failed(self, item: Item, lane: Lane, fault: Fault, sent_at: float) -> None:
        now = self._loop.time()
        self._errors[fault.error] += 1
        if fault.blame is Blame.ROW:
            self._fail(item, fault.error, fault.message)
            return
        if fault.blame is Blame.SETTINGS:
            self._spawn(self._ask_why(item, lane, fault))
            return
        lane.failed(fault, sent_at, now)
        if lane.refuses_for_good(item, fault, self.options, now):
            self._fail(item, fault.error, fault.message)
            return
        if lane.resting_until > now:
            self._loop.call_at(lane.resting_until, self._pump)
        if item.attempts:
            pass  # another attempt is under way, and decides
        elif fault.lost:
            lane.suspects.append((item, fault))
        else:
            self._retry(item, fault, lane)
        stormy = lane.streak >= self.options.breaker_after
        if (fault.lost or fault.error == "no_connection" or stormy) and lane.examination is None:
            lane.examination = self._spawn(self._examine(lane))

    async def _ask_why(self, item: Item, lane: Lane, fault: Fault) -> None:
        """Whether an endpoint refuses everything, which the tiny question tells, or this row: for what it says, or what
        it would cost."""
        probe = await self._transport.probe(lane.endpoint)
        if probe is None or probe.blame is not Blame.SETTINGS:
            if not item.done and not item.attempts:
                self._retry(item, replace(fault, blame=Blame.UNCLEAR), lane)
            return
        self._abort(
            EndpointError(
                f"{lane.endpoint.shown_url} refuses every request for {lane.endpoint.model}: {fault.message}",
                hint="check the address, the model's name and the key in the profile; stored answers are kept",
            )
        )
        self._fail(item, fault.error, fault.message)

    async def _examine(self, lane: Lane) -> None:
        """Asks the endpoint how it is; waits for it when it is down; decides what becomes of its suspects."""
        try:
            alive = await self._transport.is_healthy(lane.endpoint)
            if not alive or lane.streak >= self.options.breaker_after:
                lane.down_since = self._loop.time()
                if not alive:
                    lane.deaths += 1
                try:
                    await lane.recover(self._transport, self.options, self._rng)
                except MvlError as error:
                    # The others go on without it; its suspects move to them.
                    if not any(other.up for other in self._lanes):
                        raise
                    lane.last_fault = Fault("server_start_failed", str(error), Blame.ENDPOINT)
                    self._errors["server_start_failed"] += 1
        finally:
            lane.examination = None
        suspects, lane.suspects = lane.suspects, []
        if alive:
            for item, fault in suspects:
                self._retry(item, fault, lane)
        else:
            for item in self._quarantine.put(lane, [item for item, _ in suspects]):
                self._fail(item, "killed_server", "the server died each time it held this request alone")
        self._pump()

    def _retry(self, item: Item, fault: Fault, lane: Lane) -> None:
        # In a storm that nothing has been proven against, it is not the row's fault.
        if fault.blame is Blame.UNCLEAR and lane.streak < self.options.breaker_after:
            item.charged += 1
            if item.charged >= self.options.max_attempts:
                self._fail(item, fault.error, fault.message)
                return
        delay = backoff_s(item.sent, lane.pause_s(self.options.backoff_base_s), self.options.backoff_cap_s, self._rng)
        delay = max(delay, fault.retry_after or 0.0)
        self._loop.call_later(delay, self._again, item)

    def _again(self, item: Item) -> None:
        self._intake.ready.append(item)
        self._pump()

    def _fail(self, item: Item, error: str, message: str) -> None:
        key = item.request.key
        self.outcome.failures.append(Failure(key, error, message, item.sent))
        self._intake.failed(key)
        self._release(item)

    # -- watching --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        next_report = next_look = next_renewal = 0.0
        while True:
            now = self._loop.time()
            check_patience(self._lanes, self.options, now)
            for lane in self._lanes:
                lane.touch()
            if now >= next_renewal:
                next_renewal = now + RENEW_EVERY_S
                self._spawn(self._renew())
            if self._progress is not None and now >= next_report:
                next_report = now + self.options.progress_s
                self._progress(self._reporter.report(self.outcome, self._lanes, self._errors))
            if now >= next_look:
                next_look = now + QUEUE_EVERY_S
                for lane in self._lanes:
                    if lane.up and lane.reached and lane.tells_queue is not False:
                        self._spawn(lane.look_at_queue(self._transport))
            # Whatever waits for a time to pass (a rest, a quarantine's patience) gets its turn.
            self._pump()
            await asyncio.sleep(TICK_S)

    async def _renew(self) -> None:
        """Keeps the lease of the answers, also while a slow model gives nothing to store."""
        await self._in_log_thread(self._log.renew)

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An interrupt that a signal handler raised inside a callback ends the run; the loop would only log it."""
        error = context.get("exception")
        if error is not None and not isinstance(error, Exception):
            self._abort(error)
        else:
            loop.default_exception_handler(context)
