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
from mvl_assets.inference.concurrency_limit import Limit
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.faults import Blame, Fault
from mvl_assets.inference.image_cache import Shown
from mvl_assets.inference.latency import Pace
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import Request
from mvl_assets.inference.transport import Transport

# Refusals in a row after which Retry-After holds for the whole endpoint.
REFUSALS_TO_REST = 3
# Refusals that any request may meet on a busy server.
MOST_REFUSALS = 20
# Connections that hang, in multiples of the highest limit, beyond which nothing more is sent beside them.
MOST_LATE = 4
# Attempts of one request at the same time, at the end of a run, and how old the latest must be for another.
MOST_BESIDE = 3
SHORTEST_PATIENCE_S = 0.25
# Of a local server that ends each time before it has answered the tiny question.
MOST_STARTS = 3


@dataclass(slots=True, eq=False)
class Item:
    """A request under way. `charged` counts the attempts that may have failed by its own fault, `given_up` those that
    ended before the run's own time-out, `refusals` those an endpoint would not take. `attempts` are those in flight,
    oldest first: more than one only at the end. `done` says that it is answered or has failed; what is still in flight
    then does not count. `plain` has its pictures sent with their bytes and without a name.
    """

    request: Request
    pictures: dict[str, bytes] = field(default_factory=dict)
    weight: int = 0
    sent: int = 0
    charged: int = 0
    given_up: int = 0
    refusals: int = 0
    refused_since: float | None = None
    deaths_alone: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    done: bool = False
    plain: bool = False


@dataclass(slots=True, eq=False)
class Attempt:
    """`beside` counts what its endpoint held when it was sent, itself included. `by_name` are the pictures that are
    sent without bytes; None when pictures have no names.
    """

    item: Item
    sent_at: float
    beside: int = 1
    by_name: frozenset[str] | None = None
    task: asyncio.Task[None] | None = None


class Lane:
    """All times are those of the event loop's clock."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.limit = Limit(endpoint.start_concurrency, endpoint.max_concurrency)
        self.pace = Pace()
        # What it holds, oldest first; and what took so long that it holds no place any more.
        self._sent: dict[Attempt, None] = {}
        self._late: dict[Attempt, None] = {}
        self._replied_at = 0.0
        self.resting_until = 0.0
        self.streak = 0
        self.reached = False
        # Since when it has answered no request; None while it does.
        self.barren_since: float | None = None
        # The body of a request that it answered.
        self.proof: bytes | None = None
        # Set while the endpoint is down; None while it is up.
        self.down_since: float | None = None
        self.healing = False
        self.last_fault: Fault | None = None
        # Requests that came back without an answer and may have taken the server down.
        self.suspects: list[tuple[Item, Fault]] = []
        self.examination: asyncio.Task[None] | None = None
        # Held free for a quarantined group, whose size is `group` while it runs.
        self.reserved = False
        self.group = 0
        self.deaths = 0
        # Whether the server tells how long its queue is, which only vLLM does: None until it was asked.
        self.tells_queue: bool | None = None
        self.shown = Shown()

    @property
    def up(self) -> bool:
        return self.down_since is None

    @property
    def takes_names(self) -> bool:
        """Whether pictures may be sent by name: to vLLM."""
        return self.tells_queue is True and self.shown.pays

    @property
    def in_flight(self) -> int:
        return len(self._sent) + len(self._late)

    def is_free(self, now: float) -> bool:
        return (
            self.down_since is None
            and not self.reserved
            and len(self._sent) < self.limit.value
            and len(self._late) < MOST_LATE * self.limit.maximum
            and now >= self.resting_until
        )

    @property
    def load(self) -> float:
        return len(self._sent) / self.limit.value

    def sent(self, attempt: Attempt) -> None:
        self._sent[attempt] = None
        attempt.beside = len(self._sent)

    def ended(self, attempt: Attempt) -> None:
        self._sent.pop(attempt, None)
        self._late.pop(attempt, None)

    def succeeded(self, attempt: Attempt, tokens: int, now: float) -> None:
        """Call before the attempt has `ended`."""
        latency_s = now - attempt.sent_at
        self.reached = True
        self.streak = 0
        self.barren_since = None
        self._replied_at = now
        self.pace.replied(latency_s, tokens, attempt.item.request.max_tokens)
        self.limit.succeeded(len(self._sent), attempt.beside, latency_s)

    def look_for_late(self) -> None:
        """A request that hangs while others are answered shall not keep them waiting.

        When nothing is answered any more the server is slow or gone, and nobody is late.
        """
        late_s = self.pace.late_s
        while late_s is not None and self._sent:
            attempt = next(iter(self._sent))
            if self._replied_at - attempt.sent_at <= late_s:
                break
            del self._sent[attempt]
            self._late[attempt] = None

    def worth_asking_beside(self, now: float) -> list[Item]:
        """Requests whose latest attempt takes so long that, where there is room, another should be made beside it."""
        late_s = self.pace.late_s
        if late_s is None or self.reserved:
            return []
        patience_s = max(late_s, SHORTEST_PATIENCE_S)
        return [
            attempt.item
            for attempt in (*self._late, *self._sent)
            if now - attempt.sent_at > patience_s
            and not attempt.item.done
            and attempt is attempt.item.attempts[-1]
            and len(attempt.item.attempts) < MOST_BESIDE
        ]

    def failed(self, fault: Fault, sent_at: float, now: float) -> None:
        self.last_fault = fault
        self.streak += 1
        if self.barren_since is None:
            self.barren_since = now
        if fault.error == "malformed_reply":
            return
        stressed = self.limit.stressed(sent_at, now)
        # One refusal among many answers is the business of its own request.
        if fault.retry_after is not None and (stressed or self.streak >= REFUSALS_TO_REST):
            self.resting_until = max(self.resting_until, now + fault.retry_after)

    def refuses_for_good(self, item: Item, fault: Fault, options: EngineOptions, now: float) -> bool:
        """Whether it is this one request that is refused: again and again, for as long as a run bears an outage, while
        the endpoint answers others. So does a gateway with one that is larger than its tokens a minute."""
        if fault.blame is not Blame.ENDPOINT or not fault.error.startswith("http_"):
            return False
        item.refusals += 1
        if item.refused_since is None:
            item.refused_since = now
        return (
            item.refusals > MOST_REFUSALS
            and now - item.refused_since > options.patience_s
            and self._replied_at > item.refused_since
        )

    def pause_s(self, longest_s: float) -> float:
        """The base of the pause before what it refused is asked again: short where it answers quickly, so that a few
        refusals at the end of a run do not keep everybody waiting; `longest_s` once it refuses one after another."""
        if self.streak >= REFUSALS_TO_REST or self.pace.late_s is None:
            return longest_s
        return min(longest_s, self.pace.late_s / 2)

    def touch(self) -> None:
        """Tells a local server's keeper that it is in use."""
        if self.endpoint.in_use is not None:
            with contextlib.suppress(OSError):
                self.endpoint.in_use.touch()

    async def look_at_queue(self, transport: Transport) -> None:
        try:
            waiting = await transport.waiting(self.endpoint)
        except ConnectionError:  # another time
            return
        self.tells_queue = waiting is not None
        if waiting is not None and self.up:
            self.limit.waiting(waiting)

    async def recover(self, transport: Transport, options: EngineOptions, rng: random.Random) -> None:
        """Returns when the endpoint answers a tiny question again, and after a storm of failures also the request that
        it answered before (`proof`). The caller has set `down_since`.

        After a storm before the first answer nothing is proven: the streak of failures goes on.

        A local server is started again when it is gone. Raises `MvlError` when that fails twice, or when the server
        keeps ending before it answers.
        """
        loop = asyncio.get_running_loop()
        failures = starts = 0
        while True:
            healthy = await transport.is_healthy(self.endpoint)
            if not healthy and self.endpoint.heal is not None:
                if starts == MOST_STARTS:
                    raise EndpointError(
                        f"{self.endpoint.shown_url} was started {starts} times and ended before it answered",
                        hint="`mvl serve status` names its log",
                    )
                self.healing, began = True, loop.time()
                try:
                    self.endpoint = await in_daemon_thread(self.endpoint.heal)
                    starts += 1
                    # It was silent for a reason: the start, which may take minutes, costs no patience.
                    self.reached = True
                    self.barren_since = None
                    self.down_since = (self.down_since or began) + loop.time() - began
                except MvlError:
                    failures += 1
                    if failures == 2:
                        raise
                finally:
                    self.healing = False
            # The question decides, not /health: some proxies answer that one in their own way.
            fault = await transport.probe(self.endpoint)
            stormy = self.streak >= options.breaker_after
            if fault is None and stormy and self.proof is not None:
                answer = await transport.ask(self.endpoint, self.proof, options.base_timeout_s)
                fault = answer if isinstance(answer, Fault) else None
            if fault is None:
                break
            self.last_fault = fault
            if fault.retry_after is not None:
                await asyncio.sleep(fault.retry_after)
            await asyncio.sleep(options.probe_every_s * rng.uniform(0.5, 1.0))
        self.reached = True
        if not stormy or self.proof is not None:
            self.streak = 0
            self.barren_since = None
        self.down_since = None
        self.resting_until = 0.0
        self.pace = Pace()
        self.shown.forget()
        self.limit.restart(loop.time())


def in_daemon_thread(function: Callable[[], Any]) -> asyncio.Future[Any]:
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

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:
            error = raised
        # RuntimeError: the loop has ended, and nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="heal", daemon=True).start()
    return future
