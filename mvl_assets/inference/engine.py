"""Answers every request of an iterable, durably, whatever the servers do. `answer_all` is the way in.

How a request travels: the reader takes it from the iterable (skipping what the log already holds), its pictures are
loaded, `_pump` gives it to the least loaded endpoint, `_attempt` asks, the writer makes the answer durable. What
happens to a failed attempt is decided in `_failed`; an endpoint that may have died is looked at in `_examine`.

Belongs here: this flow. The parts it is made of lie beside it: `lane` (one endpoint), `transport` (HTTP), `retry`
(the meaning of faults), `limits` (AIMD), `writer` (commits), `quarantine` (suspects of a server's death).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.lane import Item, Lane
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.pictures import FetchPictures, PictureFault, load_pictures
from mvl_assets.inference.progress import Failure, Outcome, Progress
from mvl_assets.inference.quarantine import Quarantine
from mvl_assets.inference.request import Request
from mvl_assets.inference.retry import Blame, Fault, backoff_s
from mvl_assets.inference.transport import Transport
from mvl_assets.inference.watch import Reporter, check_patience
from mvl_assets.inference.wire import Reply, encode
from mvl_assets.inference.writer import AnswerWriter
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.schema import Answer

FIRST_CHUNK, LARGEST_CHUNK = 64, 1024
PICTURE_BATCH = 16
PICTURE_THREADS = 2
TICK_S = 0.5
# Reading stops this often to let a commit through.
SLICE_S = 0.1


def answer_all(
    requests: Iterable[Request],
    *,
    endpoints: Sequence[Endpoint],
    log: AnswerLog,
    pictures: FetchPictures | None = None,
    run_id: str = "",
    total: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    options: EngineOptions | None = None,
) -> Outcome:
    """Asks for every request that `log` has no answer for, and returns when all are answered durably or failed.

    Takes the log's lease itself (do not hold it), and runs its own event loop, so call it from ordinary code such as a
    Dagster step. `requests` is consumed lazily, in one other thread, which is
    also the one that uses `log`: the iterable may read it. `pictures` fetches original bytes for image ids; needed
    as soon as a request holds a picture. `total`, when known, gives the progress an end. `progress` is called about
    every two seconds, from the event loop: it must not block.

    One row's trouble never raises: it becomes a `Failure` in the outcome. Raises `LeaseHeld` when another process
    writes this log, `EndpointError` when no endpoint can be used, the lake's error when answers cannot be stored, and
    whatever the iterable raises; each time, and on Ctrl-C, what had arrived is stored first.
    """
    if not endpoints:
        raise EndpointError("no endpoint to ask", hint="give the model base_urls or serve in the profile")
    run = _Run(endpoints, log, pictures, run_id, total, progress, options or EngineOptions())
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
        total: int | None,
        progress: Callable[[Progress], None] | None,
        options: EngineOptions,
    ) -> None:
        self.options = options
        self.outcome = Outcome()
        self._log = log
        self._fetch = fetch
        self._run_id = run_id
        self._reporter = Reporter(total)
        self._progress = progress
        self._lanes = [Lane(endpoint) for endpoint in endpoints]
        self._longest_side = min(endpoint.max_side for endpoint in endpoints)
        self._rng = random.Random()
        self._transport = Transport()
        self._errors: Counter[str] = Counter()
        # Keys read and not yet durable; keys that failed; items neither answered nor failed.
        self._open_keys: set[str] = set()
        self._failed_keys: set[str] = set()
        self._unfinished = 0
        self._all_read = False
        self._unloaded: deque[Item] = deque()
        self._ready: deque[Item] = deque()
        self._quarantine = Quarantine(options.quarantine_groups, options.deaths_to_fail)
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # One thread for the log and for the iterable, which may read the same log: a Lance table open in this process
        # must not be read and committed to at the same time.
        self._log_thread = ThreadPoolExecutor(1, "answers")
        self._stopping = False

    # -- the run as a whole ----------------------------------------------------------------------------------------

    async def go(self, requests: Iterator[Request]) -> Outcome:
        started = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._loop_error)
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._room = asyncio.Event()
        self._to_load = asyncio.Event()
        self._writer = AnswerWriter(self._log.append, self._durable, self.options.flush_rows, self.options.flush_s)
        for lane in self._lanes:
            self._transport.headers(lane.endpoint)
        try:
            async with self._transport:
                try:
                    self._spawn(self._read(requests))
                    self._spawn(self._writer.run(self._in_log_thread))
                    self._spawn(self._tick())
                    for _ in range(PICTURE_THREADS if self._fetch else 0):
                        self._spawn(self._load())
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
        if self._all_read and not self._unfinished and not self._finished.done():
            self._finished.set_result(None)

    def _in_log_thread(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return self._loop.run_in_executor(self._log_thread, function, *arguments)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _read(self, requests: Iterator[Request]) -> None:
        size = FIRST_CHUNK
        while True:
            while len(self._open_keys) + size > self.options.max_rows and self._open_keys:
                self._room.clear()
                await self._room.wait()
            chunk, ended = await self._in_log_thread(_take, requests, size)
            if chunk:
                await self._admit(chunk)
            if ended:
                break
            size = min(size * 2, LARGEST_CHUNK, max(1, self.options.max_rows // 2))
        self._all_read = True
        self._finish_if_done()

    async def _admit(self, chunk: list[Request]) -> None:
        self.outcome.wanted += len(chunk)
        fresh: dict[str, Request] = {}
        for request in chunk:
            # Asked before the log is: a key that leaves the open set from here on is in the log by then.
            if request.key in self._open_keys or request.key in self._failed_keys or request.key in fresh:
                self.outcome.equal += 1
            else:
                fresh[request.key] = request
        answered = await self._in_log_thread(self._log.answered, list(fresh)) if fresh else set()
        self.outcome.reused += len(answered)
        for key, request in fresh.items():
            if key in answered:
                continue
            item = Item(request)
            self._open_keys.add(key)
            self._unfinished += 1
            if not request.images:
                self._ready.append(item)
            elif self._fetch is None:
                raise MvlError("a request holds a picture, and no way to fetch pictures was given")
            else:
                self._unloaded.append(item)
                self._to_load.set()
        self._pump()

    async def _load(self) -> None:
        """Keeps loaded pictures below `max_bytes`, give or take the batches under way."""
        assert self._fetch is not None
        while True:
            if not self._unloaded or self._bytes >= self.options.max_bytes:
                self._to_load.clear()
                await self._to_load.wait()
                continue
            count = min(PICTURE_BATCH, len(self._unloaded))
            batch = [self._unloaded.popleft() for _ in range(count)]
            ids = [image_id for item in batch for image_id in item.request.images]
            loaded = await asyncio.to_thread(load_pictures, self._fetch, ids, self._longest_side)
            for item in batch:
                self._loaded(item, loaded)
            self._pump()

    def _loaded(self, item: Item, loaded: dict[str, bytes | PictureFault]) -> None:
        for image_id in item.request.images:
            picture = loaded[image_id]
            if isinstance(picture, PictureFault):
                self._fail(item, picture.error, picture.message)
                return
            item.pictures[image_id] = picture
        item.weight = sum(len(data) for data in item.pictures.values())
        self._bytes += item.weight
        self._ready.append(item)

    # -- sending ---------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Starts every request that may start now. Called whenever something changes."""
        if self._stopping:
            return
        now = self._loop.time()
        while (turn := self._quarantine.next_group(self._lanes, now)) is not None:
            lane, group = turn
            for item in group:
                self._start(item, lane)
        while self._ready:
            free = [lane for lane in self._lanes if lane.is_free(now)]
            if not free:
                break
            self._start(self._ready.popleft(), min(free, key=lambda lane: lane.load))

    def _start(self, item: Item, lane: Lane) -> None:
        lane.in_flight += 1
        item.sent += 1
        self.outcome.sent += 1
        self._spawn(self._attempt(item, lane))

    async def _attempt(self, item: Item, lane: Lane) -> None:
        sent_at = self._loop.time()
        body = encode(item.request, lane.endpoint, item.pictures)
        result: Reply | Fault | None = None
        try:
            result = await self._transport.ask(lane.endpoint, body, self.options.timeout_s(item.request))
        finally:
            if isinstance(result, Reply):
                lane.succeeded()
            lane.in_flight -= 1
        if isinstance(result, Reply):
            self._answered(item, result, self._loop.time() - sent_at)
        else:
            self._failed(item, lane, result, sent_at)
        self._pump()

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
        self._open_keys.difference_update(answer.request_key for answer in answers)
        self._room.set()

    def _release(self, item: Item) -> None:
        """The item is answered or has failed."""
        self._unfinished -= 1
        if item.weight:
            self._bytes -= item.weight
            item.pictures = {}
            self._to_load.set()
        self._finish_if_done()

    # -- failing ---------------------------------------------------------------------------------------------------

    def _failed(self, item: Item, lane: Lane, fault: Fault, sent_at: float) -> None:
        now = self._loop.time()
        self._errors[fault.error] += 1
        if fault.blame is Blame.ROW:
            self._fail(item, fault.error, fault.message)
            return
        if fault.blame is Blame.SETTINGS:
            self._abort(
                EndpointError(
                    f"{lane.endpoint.base_url} refuses every request for {lane.endpoint.model}: {fault.message}",
                    hint="check the address, the model's name and the key in the profile; stored answers are kept",
                )
            )
            self._fail(item, fault.error, fault.message)
            return
        lane.failed(fault, sent_at, now)
        if lane.resting_until > now:
            self._loop.call_at(lane.resting_until, self._pump)
        if fault.lost:
            lane.suspects.append((item, fault))
        else:
            self._retry(item, fault)
        stormy = lane.streak >= self.options.breaker_after
        if (fault.lost or fault.error == "no_connection" or stormy) and lane.examination is None:
            lane.examination = self._spawn(self._examine(lane))

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
                self._retry(item, fault)
        else:
            for item in self._quarantine.put(lane, [item for item, _ in suspects]):
                self._fail(item, "killed_server", "the server died each time it held this request alone")
        self._pump()

    def _retry(self, item: Item, fault: Fault) -> None:
        if fault.blame is Blame.UNCLEAR:
            item.charged += 1
            if item.charged >= self.options.max_attempts:
                self._fail(item, fault.error, fault.message)
                return
        delay = backoff_s(item.sent, self.options.backoff_base_s, self.options.backoff_cap_s, self._rng)
        self._loop.call_later(delay, self._again, item)

    def _again(self, item: Item) -> None:
        self._ready.append(item)
        self._pump()

    def _fail(self, item: Item, error: str, message: str) -> None:
        key = item.request.key
        self.outcome.failures.append(Failure(key, error, message, item.sent))
        self._failed_keys.add(key)
        self._open_keys.discard(key)
        self._room.set()
        self._release(item)

    # -- watching --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        next_report = 0.0
        while True:
            now = self._loop.time()
            check_patience(self._lanes, self.options, now)
            for lane in self._lanes:
                lane.touch()
            if self._progress is not None and now >= next_report:
                next_report = now + self.options.progress_s
                self._progress(self._reporter.report(self.outcome, self._lanes, self._errors))
            # Whatever waits for a time to pass (a rest, a quarantine's patience) gets its turn.
            self._pump()
            await asyncio.sleep(TICK_S)

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An interrupt that a signal handler raised inside a callback ends the run; the loop would only log it."""
        error = context.get("exception")
        if error is not None and not isinstance(error, Exception):
            self._abort(error)
        else:
            loop.default_exception_handler(context)


def _take(requests: Iterator[Request], most: int) -> tuple[list[Request], bool]:
    """At most `most` requests, fewer when they come slowly, and whether that was all."""
    chunk: list[Request] = []
    until = time.monotonic() + SLICE_S
    while len(chunk) < most and time.monotonic() < until:
        request = next(requests, None)
        if request is None:
            return chunk, True
        chunk.append(request)
    return chunk, False
