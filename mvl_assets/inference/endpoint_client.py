"""One endpoint as a run sees it: how much it may hold, whether it is up, and what brings it back.

Belongs here: the state of an endpoint and waiting for its recovery. Which request goes where is `engine.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.inference.concurrency_limit import AdaptiveConcurrencyLimit
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.faults import FaultScope, RequestFault
from mvl_assets.inference.image_cache import ServerImageCache
from mvl_assets.inference.latency import LatencyTracker
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import Request
from mvl_assets.inference.transport import Transport

# Refusals in a row after which Retry-After holds for the whole endpoint.
COOLDOWN_AFTER_REJECTIONS = 3
# Refusals that any request may meet on a busy server.
MAX_REJECTIONS = 20
# Connections that hang, in multiples of the highest limit, beyond which nothing more is sent beside them.
MAX_STRAGGLER_FACTOR = 4
# Attempts of one request at the same time, at the end of a run, and how old the latest must be for another.
MAX_HEDGED_ATTEMPTS = 3
MIN_HEDGE_AFTER_S = 0.25
# Of a local server that ends each time before it has answered the tiny question.
MAX_RESTARTS = 3


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request under way. `row_failures` counts the attempts that may have failed by its own fault, `client_timeouts` those that
    ended before the run's own time-out, `rejections` those an endpoint would not take. `attempts` are those in flight,
    oldest first: more than one only at the end. `settled` says that it is answered or has failed; what is still in flight
    then does not count. `inline_images` has its pictures sent with their bytes and without a name.
    """

    request: Request
    images: dict[str, bytes] = field(default_factory=dict)
    n_bytes: int = 0
    attempts_sent: int = 0
    row_failures: int = 0
    client_timeouts: int = 0
    rejections: int = 0
    first_rejected_at: float | None = None
    solo_crashes: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    settled: bool = False
    inline_images: bool = False


@dataclass(slots=True, eq=False)
class Attempt:
    """`in_flight_at_send` counts what its endpoint held when it was sent, itself included. `cached_image_ids` are the pictures that are
    sent without bytes; None when pictures have no names.
    """

    pending: PendingRequest
    sent_at: float
    in_flight_at_send: int = 1
    cached_image_ids: frozenset[str] | None = None
    task: asyncio.Task[None] | None = None


class EndpointClient:
    """All times are those of the event loop's clock."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.limit = AdaptiveConcurrencyLimit(endpoint.start_concurrency, endpoint.max_concurrency)
        self.latency = LatencyTracker()
        # What it holds, oldest first; and what took so long that it holds no place any more.
        self._active: dict[Attempt, None] = {}
        self._stragglers: dict[Attempt, None] = {}
        self._last_reply_at = 0.0
        self.cooldown_until = 0.0
        self.consecutive_failures = 0
        self.has_responded = False
        # Since when it has answered no request; None while it does.
        self.no_success_since: float | None = None
        # The body of a request that it answered.
        self.canary_body: bytes | None = None
        # Set while the endpoint is down; None while it is up.
        self.down_since: float | None = None
        self.restarting = False
        self.last_fault: RequestFault | None = None
        # Requests that came back without an answer and may have taken the server down.
        self.crash_suspects: list[tuple[PendingRequest, RequestFault]] = []
        self.health_check_task: asyncio.Task[None] | None = None
        # Held free for a quarantined group, whose size is `isolated_group_size` while it runs.
        self.draining = False
        self.isolated_group_size = 0
        self.crashes = 0
        # Whether the server tells how long its queue is, which only vLLM does: None until it was asked.
        self.reports_queue: bool | None = None
        self.image_cache = ServerImageCache()

    @property
    def is_up(self) -> bool:
        return self.down_since is None

    @property
    def supports_image_cache(self) -> bool:
        """Whether pictures may be sent by name: to vLLM."""
        return self.reports_queue is True and self.image_cache.is_effective

    @property
    def in_flight(self) -> int:
        return len(self._active) + len(self._stragglers)

    def is_free(self, now: float) -> bool:
        return (
            self.down_since is None
            and not self.draining
            and len(self._active) < self.limit.value
            and len(self._stragglers) < MAX_STRAGGLER_FACTOR * self.limit.maximum
            and now >= self.cooldown_until
        )

    @property
    def load(self) -> float:
        return len(self._active) / self.limit.value

    def on_sent(self, attempt: Attempt) -> None:
        self._active[attempt] = None
        attempt.in_flight_at_send = len(self._active)

    def on_finished(self, attempt: Attempt) -> None:
        self._active.pop(attempt, None)
        self._stragglers.pop(attempt, None)

    def on_success(self, attempt: Attempt, completion_tokens: int, now: float) -> None:
        """Call before the attempt has `on_finished`."""
        latency_s = now - attempt.sent_at
        self.has_responded = True
        self.consecutive_failures = 0
        self.no_success_since = None
        self._last_reply_at = now
        self.latency.observe(latency_s, completion_tokens, attempt.pending.request.max_tokens)
        self.limit.on_success(len(self._active), attempt.in_flight_at_send, latency_s)

    def demote_stragglers(self) -> None:
        """A request that hangs while others are answered shall not keep them waiting.

        When nothing is answered any more the server is slow or gone, and nobody is late.
        """
        straggler_after_s = self.latency.straggler_after_s
        while straggler_after_s is not None and self._active:
            attempt = next(iter(self._active))
            if self._last_reply_at - attempt.sent_at <= straggler_after_s:
                break
            del self._active[attempt]
            self._stragglers[attempt] = None

    def list_hedge_candidates(self, now: float) -> list[PendingRequest]:
        """Requests whose latest attempt takes so long that, where there is room, another should be made beside it."""
        straggler_after_s = self.latency.straggler_after_s
        if straggler_after_s is None or self.draining:
            return []
        hedge_after_s = max(straggler_after_s, MIN_HEDGE_AFTER_S)
        return [
            attempt.pending
            for attempt in (*self._stragglers, *self._active)
            if now - attempt.sent_at > hedge_after_s
            and not attempt.pending.settled
            and attempt is attempt.pending.attempts[-1]
            and len(attempt.pending.attempts) < MAX_HEDGED_ATTEMPTS
        ]

    def on_failure(self, fault: RequestFault, sent_at: float, now: float) -> None:
        self.last_fault = fault
        self.consecutive_failures += 1
        if self.no_success_since is None:
            self.no_success_since = now
        if fault.error == "malformed_reply":
            return
        limit_was_cut = self.limit.on_backpressure(sent_at, now)
        # One refusal among many answers is the business of its own request.
        if fault.retry_after_s is not None and (
            limit_was_cut or self.consecutive_failures >= COOLDOWN_AFTER_REJECTIONS
        ):
            self.cooldown_until = max(self.cooldown_until, now + fault.retry_after_s)

    def rejects_permanently(
        self, pending: PendingRequest, fault: RequestFault, options: EngineOptions, now: float
    ) -> bool:
        """Whether it is this one request that is refused: again and again, for as long as a run bears an outage, while
        the endpoint answers others. So does a gateway with one that is larger than its tokens a minute."""
        if fault.scope is not FaultScope.ENDPOINT or not fault.error.startswith("http_"):
            return False
        pending.rejections += 1
        if pending.first_rejected_at is None:
            pending.first_rejected_at = now
        return (
            pending.rejections > MAX_REJECTIONS
            and now - pending.first_rejected_at > options.outage_timeout_s
            and self._last_reply_at > pending.first_rejected_at
        )

    def compute_backoff_base_s(self, max_base_s: float) -> float:
        """The base of the pause before what it refused is asked again: short where it answers quickly, so that a few
        refusals at the end of a run do not keep everybody waiting; `max_base_s` once it refuses one after another."""
        if self.consecutive_failures >= COOLDOWN_AFTER_REJECTIONS or self.latency.straggler_after_s is None:
            return max_base_s
        return min(max_base_s, self.latency.straggler_after_s / 2)

    def send_heartbeat(self) -> None:
        """Tells a local server's keeper that it is in use."""
        if self.endpoint.heartbeat_file is not None:
            with contextlib.suppress(OSError):
                self.endpoint.heartbeat_file.touch()

    async def poll_queue_length(self, transport: Transport) -> None:
        try:
            queue_length = await transport.read_queue_length(self.endpoint)
        except ConnectionError:  # another time
            return
        self.reports_queue = queue_length is not None
        if queue_length is not None and self.is_up:
            self.limit.on_queue_length(queue_length)

    async def wait_for_recovery(self, transport: Transport, options: EngineOptions, rng: random.Random) -> None:
        """Returns when the endpoint answers a tiny question again, and after a storm of failures also the request that
        it answered before (`canary_body`). The caller has set `down_since`.

        After a storm before the first answer nothing is proven: the streak of failures goes on.

        A local server is started again when it is gone. Raises `MvlError` when that fails twice, or when the server
        keeps ending before it answers.
        """
        loop = asyncio.get_running_loop()
        n_failed_restarts = n_restarts = 0
        while True:
            healthy = await transport.is_healthy(self.endpoint)
            if not healthy and self.endpoint.restart is not None:
                if n_restarts == MAX_RESTARTS:
                    raise EndpointError(
                        f"{self.endpoint.redacted_url} was started {n_restarts} times and ended before it answered",
                        hint="`mvl serve status` names its log",
                    )
                self.restarting, restart_began_at = True, loop.time()
                try:
                    self.endpoint = await run_in_daemon_thread(self.endpoint.restart)
                    n_restarts += 1
                    # It was silent for a reason: the start, which may take minutes, costs no patience.
                    self.has_responded = True
                    self.no_success_since = None
                    self.down_since = (self.down_since or restart_began_at) + loop.time() - restart_began_at
                except MvlError:
                    n_failed_restarts += 1
                    if n_failed_restarts == 2:
                        raise
                finally:
                    self.restarting = False
            # The question decides, not /health: some proxies answer that one in their own way.
            fault = await transport.probe(self.endpoint)
            breaker_open = self.consecutive_failures >= options.circuit_breaker_threshold
            if fault is None and breaker_open and self.canary_body is not None:
                result = await transport.send_request(self.endpoint, self.canary_body, options.base_timeout_s)
                fault = result if isinstance(result, RequestFault) else None
            if fault is None:
                break
            self.last_fault = fault
            if fault.retry_after_s is not None:
                await asyncio.sleep(fault.retry_after_s)
            await asyncio.sleep(options.probe_interval_s * rng.uniform(0.5, 1.0))
        self.has_responded = True
        if not breaker_open or self.canary_body is not None:
            self.consecutive_failures = 0
            self.no_success_since = None
        self.down_since = None
        self.cooldown_until = 0.0
        self.latency = LatencyTracker()
        self.image_cache.clear()
        self.limit.reset(loop.time())


def run_in_daemon_thread(function: Callable[[], Any]) -> asyncio.Future[Any]:
    """Runs a call that may take minutes in a thread that a stop of the process does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run_and_settle() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:
            error = raised
        # RuntimeError: the loop has ended, and nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run_and_settle, name="heal", daemon=True).start()
    return future
