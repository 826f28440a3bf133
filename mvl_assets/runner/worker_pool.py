"""Steps in processes of their own, several at a time: interrupted together, and never outliving the command.

Belongs here: starting, interrupting and losing worker processes. What a step is belongs to `runner.py`, which step is
started when to `pipelining.py`.
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
from mvl_assets.orchestration.stage_progress import add_listener
from mvl_assets.runner.asset_steps import AssetStep, StepResult, run_step_in_worker
from mvl_assets.runner.user_errors import ErrorReport

# How long an interrupted step may take to store what has arrived.
INTERRUPT_GRACE_S = 30.0
WORKER_KILLED = ErrorReport(
    "the process that ran it was killed",
    "usually for want of memory: free some, or lower the model's kv_cache_gib, then run again",
    is_fatal=True,
)
_SPAWN_CONTEXT = multiprocessing.get_context("spawn")

ReportQueue: TypeAlias = "Queue[tuple[str, Progress]]"


def make_report_queue() -> ReportQueue:
    """Where worker processes put the progress of their steps."""
    return _SPAWN_CONTEXT.Queue()


def drain_reports(report_queue: ReportQueue) -> Iterator[tuple[str, Progress]]:
    """What has been put there until now, by the step's name."""
    with suppress(queue.Empty):
        while True:
            yield report_queue.get_nowait()


class WorkerPool:
    """Up to `max_workers` processes, each started when no other is idle. Processes, because a process runs one step at a
    time (`runner`)."""

    def __init__(self, max_workers: int, report_queue: ReportQueue) -> None:
        self.running: dict[Future[StepResult], AssetStep] = {}
        self._executor = ProcessPoolExecutor(
            max_workers, mp_context=_SPAWN_CONTEXT, initializer=_init_worker, initargs=(report_queue,)
        )

    def start(self, step: AssetStep) -> None:
        with _block_sigint():
            self.running[self._executor.submit(run_step_in_worker, step)] = step

    def collect_result(self, future: Future[StepResult]) -> StepResult:
        """The result of one of the running steps, which has ended."""
        step = self.running.pop(future)
        try:
            return future.result()
        except BrokenProcessPool:
            return StepResult(step, WORKER_KILLED, "", 0.0)

    def shutdown(self) -> None:
        """Nothing runs any more: the processes end by themselves."""
        self._executor.shutdown(wait=False)

    def interrupt(self) -> None:
        """Interrupts what runs and waits for it; kills what does not end within `INTERRUPT_GRACE_S`, or at once on a second
        interrupt."""
        children = multiprocessing.active_children()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child.pid or 0, signal.SIGINT)

        def kill_children() -> None:
            for child in children:
                child.kill()

        timer = threading.Timer(INTERRUPT_GRACE_S, kill_children)
        timer.daemon = True
        timer.start()
        try:
            self._executor.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            kill_children()
            raise
        finally:
            timer.cancel()


def _init_worker(report_queue: ReportQueue) -> None:
    """Ctrl-C at a terminal reaches the whole foreground group; the command alone hears it and passes it on, once.

    Between steps there is nothing to interrupt. During a step Dagster puts its own handler in place.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    # Reports that nobody reads any more must not keep a process from ending.
    report_queue.cancel_join_thread()
    add_listener(lambda name, progress: report_queue.put((name, progress)))


def _exit_with_parent() -> None:
    """A worker that nobody waits for must not go on holding leases: a kill -9 of the command ends it too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _block_sigint() -> Iterator[None]:
    """Processes started here begin deaf to Ctrl-C, until `_init_worker` has set them up."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
