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
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.limits import AimdLimit
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import Request
from mvl_assets.inference.retry import Fault
from mvl_assets.inference.transport import Transport


@dataclass(slots=True, eq=False)
class Item:
    """A request under way. `charged` counts the attempts that may have failed by its own fault."""

    request: Request
    pictures: dict[str, bytes] = field(default_factory=dict)
    weight: int = 0
    sent: int = 0
    charged: int = 0
    deaths_alone: int = 0


class Lane:
    """All times are those of the event loop's clock."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.limit = AimdLimit(endpoint.start_concurrency, endpoint.max_concurrency)
        self.in_flight = 0
        self.resting_until = 0.0
        self.streak = 0
        self.reached = False
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

    @property
    def up(self) -> bool:
        return self.down_since is None

    def is_free(self, now: float) -> bool:
        return (
            self.down_since is None
            and not self.reserved
            and self.in_flight < self.limit.value
            and now >= self.resting_until
        )

    @property
    def load(self) -> float:
        return self.in_flight / self.limit.value

    def succeeded(self) -> None:
        """Call before `in_flight` is lowered."""
        self.reached = True
        self.streak = 0
        self.limit.succeeded(self.in_flight)

    def failed(self, fault: Fault, sent_at: float, now: float) -> None:
        self.last_fault = fault
        self.streak += 1
        if fault.error != "malformed_reply":
            self.limit.stressed(sent_at, now)
        if fault.retry_after is not None:
            self.resting_until = max(self.resting_until, now + fault.retry_after)

    def touch(self) -> None:
        """Tells a local server's keeper that it is in use."""
        if self.endpoint.in_use is not None:
            with contextlib.suppress(OSError):
                self.endpoint.in_use.touch()

    async def recover(self, transport: Transport, options: EngineOptions, rng: random.Random) -> None:
        """Returns when the endpoint answers a tiny question again. The caller has set `down_since`.

        A local server is started again when it is gone. Raises `MvlError` when that fails twice.
        """
        failures = 0
        while True:
            healthy = await transport.is_healthy(self.endpoint)
            if not healthy and self.endpoint.heal is not None:
                self.healing = True
                try:
                    self.endpoint = await in_daemon_thread(self.endpoint.heal)
                except MvlError:
                    failures += 1
                    if failures == 2:
                        raise
                finally:
                    self.healing = False
            # The question decides, not /health: some proxies answer that one in their own way.
            fault = await transport.probe(self.endpoint)
            if fault is None:
                break
            self.last_fault = fault
            if fault.retry_after is not None:
                await asyncio.sleep(fault.retry_after)
            await asyncio.sleep(options.probe_every_s * rng.uniform(0.5, 1.0))
        loop = asyncio.get_running_loop()
        self.reached = True
        self.streak = 0
        self.down_since = None
        self.resting_until = 0.0
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
