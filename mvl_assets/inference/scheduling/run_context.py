"""Objects that the parts of one run share: tasks, endpoints, settings, counters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import RunOutcome


class RunTasks:
    """The tasks of one run, which ends when it is finished or with the first error of a task.

    Create it inside the run's event loop. The log and the iterable of requests are used in one thread, the log thread:
    the iterable may read the same log, and a Lance table that is open in this process must not be read and committed to
    at the same time.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._handle_loop_error)
        self.stopping = False
        self._finished: asyncio.Future[None] = self.loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log_thread = ThreadPoolExecutor(1, "answers")

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task whose error ends the run."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def run_on_log_thread(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Run a blocking call in the thread of the log."""
        return self.loop.run_in_executor(self._log_thread, function, *arguments)

    def finish(self) -> None:
        """End the run: every request is settled."""
        if not self._finished.done():
            self._finished.set_result(None)

    def abort(self, error: BaseException) -> None:
        """End the run with an error, unless it has ended."""
        if not self._finished.done():
            self._finished.set_exception(error)

    async def wait_until_finished(self) -> None:
        """Return when the run is finished; raise the error it was aborted with."""
        await self._finished

    async def cancel_all(self) -> None:
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def shut_down_log_thread(self) -> None:
        """Wait until the log thread has finished its current call."""
        self._log_thread.shutdown(wait=True)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.abort(error)

    def _handle_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the run with an interrupt that a signal handler raised inside a callback; the loop would only log it."""
        error = context.get("exception")
        if error is not None and not isinstance(error, Exception):
            self.abort(error)
        else:
            loop.default_exception_handler(context)


@dataclass(slots=True)
class RunContext:
    """Endpoints, settings and counters of one run.

    Attributes:
        clients: Endpoints that get requests; only a `FleetMonitor` changes the list.
        leaving: Endpoints that have left and hold their last requests.
        error_counts: Failed attempts by error, for progress.
    """

    options: EngineOptions
    clients: list[EndpointClient]
    transport: Transport
    tasks: RunTasks
    leaving: list[EndpointClient] = field(default_factory=list)
    outcome: RunOutcome = field(default_factory=RunOutcome)
    error_counts: Counter[str] = field(default_factory=Counter)
