"""Steps in processes of their own, several at a time: interrupted together, and never outliving the command.

Belongs here: starting, interrupting and losing worker processes. What a step is belongs to `runner.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection

from mvl_assets.cli.failures import Problem
from mvl_assets.cli.runner import Done, Step, run_here

# How long an interrupted step may take to store what has arrived.
GRACE_S = 30.0
LOST = Problem(
    "the process that ran it was killed",
    "usually for want of memory: free some, or lower the model's kv_cache_gib, then run again",
    stops=True,
)


def run_beside(steps: Sequence[Step], at_once: int) -> Generator[Done, None, None]:
    """Runs steps in up to `at_once` processes and yields each as it ends. Processes, because a process runs one step at
    a time (`runner`). When the caller stops, or is interrupted, the steps under way are interrupted and waited for."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(at_once, len(steps)), mp_context=context, initializer=_begin_worker) as pool:
        try:
            with _deaf():
                futures = {pool.submit(run_here, step): step for step in steps}
            for future in as_completed(futures):
                yield _done(future, futures[future])
        except BaseException:
            _end(pool)
            raise


def _done(future: Future[Done], step: Step) -> Done:
    try:
        return future.result()
    except BrokenProcessPool:
        return Done(step, LOST, "", 0.0)


def _end(pool: ProcessPoolExecutor) -> None:
    """Interrupts what runs; kills what does not end within `GRACE_S`, or at once on a second interrupt."""
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
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:
        kill()
        raise
    finally:
        timer.cancel()


def _begin_worker() -> None:
    """Ctrl-C at a terminal reaches the whole foreground group; the command alone hears it and passes it on, once.

    Between steps there is nothing to interrupt. During a step Dagster puts its own handler in place.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


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
