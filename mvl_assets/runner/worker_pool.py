"""Pool of worker processes that run steps; they are interrupted together and never outlive the command."""

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
    "usually because memory ran out: free some, or lower the model's kv_cache_gib, then run again",
    is_fatal=True,
)
_SPAWN_CONTEXT = multiprocessing.get_context("spawn")

ReportQueue: TypeAlias = "Queue[tuple[str, Progress]]"


def make_report_queue() -> ReportQueue:
    """Return a queue for the progress that worker processes report, with the step's name."""
    return _SPAWN_CONTEXT.Queue()


def drain_reports(report_queue: ReportQueue) -> Iterator[tuple[str, Progress]]:
    """Yield the reports that are in the queue now."""
    with suppress(queue.Empty):
        while True:
            yield report_queue.get_nowait()


class WorkerPool:
    """Up to `max_workers` processes, each started when no other is idle.

    They are processes because a process runs one step at a time (`asset_steps`).
    """

    def __init__(self, max_workers: int, report_queue: ReportQueue) -> None:
        self.running: dict[Future[StepResult], AssetStep] = {}
        self._executor = ProcessPoolExecutor(
            max_workers, mp_context=_SPAWN_CONTEXT, initializer=_init_worker, initargs=(report_queue,)
        )

    def start(self, step: AssetStep) -> None:
        """Start a step."""
        with _block_sigint():
            self.running[self._executor.submit(run_step_in_worker, step)] = step

    def collect_result(self, future: Future[StepResult]) -> StepResult:
        """Return the result of a step that has ended."""
        step = self.running.pop(future)
        try:
            return future.result()
        except BrokenProcessPool:
            return StepResult(step, WORKER_KILLED, {}, 0.0)

    def shutdown(self) -> None:
        """Let the processes end by themselves; nothing may be running."""
        self._executor.shutdown(wait=False)

    def interrupt(self) -> None:
        """Interrupt the running steps and wait for them.

        Processes that do not end within `INTERRUPT_GRACE_S` are killed; on a second interrupt, all at once.
        """
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
    """Set up a worker process, which leaves the terminal's foreground group.

    Ctrl-C reaches the whole group; only the command should get it, and pass it on once. Between steps there is nothing
    to interrupt; during a step Dagster installs its own handler.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    # Reports that are not read any more must not keep a process from ending.
    report_queue.cancel_join_thread()
    add_listener(lambda name, progress: report_queue.put((name, progress)))


def _exit_with_parent() -> None:
    """Exit when the command ends, even if it is killed: an orphaned worker would keep its leases."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _block_sigint() -> Iterator[None]:
    """Start processes with Ctrl-C blocked, until `_init_worker` has set them up."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
