"""Steps in processes of their own, several at a time: interrupted together, and never outliving the command.

Belongs here: starting, interrupting and losing worker processes. What a step is belongs to `runner.py`, which step is
started when to `flow.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.queues import Queue
from typing import TypeAlias

from mvl_assets.inference.progress import Progress
from mvl_assets.orchestration.stage_progress import listen
from mvl_assets.runner.asset_steps import Done, Step, run_here
from mvl_assets.runner.user_errors import Problem

# How long an interrupted step may take to store what has arrived.
GRACE_S = 30.0
LOST = Problem(
    "the process that ran it was killed",
    "usually for want of memory: free some, or lower the model's kv_cache_gib, then run again",
    stops=True,
)
_CONTEXT = multiprocessing.get_context("spawn")

Reports: TypeAlias = "Queue[tuple[str, Progress]]"


def reports() -> Reports:
    """Where worker processes put the progress of their steps."""
    return _CONTEXT.Queue()


def heard(from_workers: Reports) -> Iterator[tuple[str, Progress]]:
    """What has been put there until now, by the step's name."""
    with suppress(queue.Empty):
        while True:
            yield from_workers.get_nowait()


class Workers:
    """Up to `at_once` processes, each started when no other is idle. Processes, because a process runs one step at a
    time (`runner`)."""

    def __init__(self, at_once: int, reports: Reports) -> None:
        self.running: dict[Future[Done], Step] = {}
        self._pool = ProcessPoolExecutor(at_once, mp_context=_CONTEXT, initializer=_begin_worker, initargs=(reports,))

    def start(self, step: Step) -> None:
        with _deaf():
            self.running[self._pool.submit(run_here, step)] = step

    def ended(self, future: Future[Done]) -> Done:
        """The result of one of the running steps, which has ended."""
        step = self.running.pop(future)
        try:
            return future.result()
        except BrokenProcessPool:
            return Done(step, LOST, "", 0.0)

    def let_go(self) -> None:
        """Nothing runs any more: the processes end by themselves."""
        self._pool.shutdown(wait=False)

    def interrupt(self) -> None:
        """Interrupts what runs and waits for it; kills what does not end within `GRACE_S`, or at once on a second
        interrupt."""
        children = multiprocessing.active_children()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child.pid or 0, signal.SIGINT)

        def kill() -> None:
            for child in children:
                child.kill()

        timer = threading.Timer(GRACE_S, kill)
        timer.daemon = True
        timer.start()
        try:
            self._pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            kill()
            raise
        finally:
            timer.cancel()


def _begin_worker(reports: Reports) -> None:
    """Ctrl-C at a terminal reaches the whole foreground group; the command alone hears it and passes it on, once.

    Between steps there is nothing to interrupt. During a step Dagster puts its own handler in place.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    # Reports that nobody reads any more must not keep a process from ending.
    reports.cancel_join_thread()
    listen(lambda name, progress: reports.put((name, progress)))


def _end_with_parent() -> None:
    """A worker that nobody waits for must not go on holding leases: a kill -9 of the command ends it too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started here begin deaf to Ctrl-C, until `_begin_worker` has set them up."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
