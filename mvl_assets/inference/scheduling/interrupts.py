"""Interrupts of a run: delivered between two callbacks of the event loop, never inside one.

A signal handler that raises does so wherever the main thread happens to be. Inside a library that may be code which
takes any exception for a fault of its own: aiohttp's parser makes a broken reply of one that comes while it reads a
body, so the request would be sent again and the run would go on as if nobody had interrupted it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from mvl_assets.inference.scheduling.run_context import RunTasks


class InterruptGuard:
    """Calls the handlers of SIGINT and SIGTERM from the event loop; what they raise ends the run.

    A context manager around the event loop. A second signal is not held back. It does nothing outside the main thread,
    where no handler can run, and for signals without a Python handler.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._tasks: RunTasks | None = None
        self._pending_signal: int | None = None
        self._error: BaseException | None = None

    def attach(self, tasks: RunTasks) -> None:
        """Deliver signals to this run from now on."""
        self._tasks = tasks

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if error is not None:
            return
        # The signal came when the run had already finished.
        if self._error is not None:
            raise self._error
        if self._pending_signal is not None:
            self._handlers[self._pending_signal](self._pending_signal, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._tasks is None or self._pending_signal is not None or self._error is not None:
            self._handlers[number](number, frame)
            return
        self._pending_signal = number
        if not self._tasks.loop.is_closed():
            self._tasks.loop.call_soon_threadsafe(self._deliver, self._tasks, number)

    def _deliver(self, tasks: RunTasks, number: int) -> None:
        self._pending_signal = None
        try:
            self._handlers[number](number, None)
        except BaseException as error:
            self._error = error
            tasks.abort(error)
