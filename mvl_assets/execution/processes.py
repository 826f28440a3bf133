"""Processes of this machine as an executor.

Not `ProcessPoolExecutor`: there one dead process ends all others and does not say whose task it was. Here its task
alone is started again, by a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from multiprocessing import connection
from typing import Any, Generic

from mvl_assets.execution.executor import (
    CANCEL_GRACE_S,
    MAX_ATTEMPTS,
    Executor,
    Outcome,
    Report,
    Result,
    Task,
    TaskFailed,
    WorkerDied,
    count_cpus,
    run_task,
)

_SPAWN_CONTEXT = multiprocessing.get_context("spawn")


class ProcessExecutor(Executor):
    """Up to `n_processes` spawned processes (None: one per CPU), but no more than tasks.

    A single process, or a single task, is run in the calling process.
    """

    def __init__(self, n_processes: int | None = None) -> None:
        self.n_processes = n_processes or count_cpus()

    def run_reporting(
        self,
        function: Callable[[Task, Report], Result],
        tasks: Iterable[Task],
        on_message: Callable[[Task, Any], None],
    ) -> Generator[Result, None, None]:
        all_tasks = iter(tasks)
        first_tasks = list(islice(all_tasks, 2))
        remaining_tasks = chain(first_tasks, all_tasks)
        if self.n_processes == 1 or len(first_tasks) == 1:
            for task in remaining_tasks:
                yield run_task(function, task, partial(on_message, task)).unwrap(task)
            return
        pool = _Pool(function, remaining_tasks, self.n_processes)
        try:
            yield from pool.iter_results(on_message)
        except BaseException:
            pool.cancel()
            raise
        pool.close()


@dataclass(slots=True)
class _Attempt(Generic[Task]):
    """A task, and how often it was started."""

    task: Task
    n_starts: int = 0


class _Worker(Generic[Task, Result]):
    """A process, and the task that it runs."""

    def __init__(self) -> None:
        self.connection, child_connection = _SPAWN_CONTEXT.Pipe()
        self.attempt: _Attempt[Task] | None = None
        self.process = _SPAWN_CONTEXT.Process(target=_serve_tasks, args=(child_connection,), daemon=True)
        # Started with Ctrl-C blocked, until the process has left the terminal's foreground group.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        child_connection.close()

    def start(self, function: Callable[[Task, Report], Result], attempt: _Attempt[Task]) -> None:
        """Hand a task to the process; one that is dead already is noticed when its answer is read."""
        attempt.n_starts += 1
        self.attempt = attempt
        with suppress(BrokenPipeError):
            self.connection.send((function, attempt.task))

    def describe_end(self) -> str:
        """Say how the process died."""
        self.process.join(timeout=10)
        exit_code = self.process.exitcode
        if exit_code is not None and exit_code < 0:
            return f"signal {-exit_code} ({signal.Signals(-exit_code).name})"
        return f"exit code {exit_code}"


class _Pool(Generic[Task, Result]):
    """The processes of one run."""

    def __init__(self, function: Callable[[Task, Report], Result], tasks: Iterator[Task], n_processes: int) -> None:
        self._function = function
        self._tasks = tasks
        self._n_processes = n_processes
        self._restarts: deque[_Attempt[Task]] = deque()
        self._next_attempt: _Attempt[Task] | None = None
        self._busy: dict[connection.Connection, _Worker[Task, Result]] = {}
        self._idle: list[_Worker[Task, Result]] = []

    def iter_results(self, on_message: Callable[[Task, Any], None]) -> Iterator[Result]:
        """Yield the results as the tasks end."""
        while True:
            while len(self._busy) < self._n_processes and (attempt := self._take_attempt()) is not None:
                worker = self._idle.pop() if self._idle else _Worker()
                self._busy[worker.connection] = worker
                worker.start(self._function, attempt)
            if not self._busy:
                return
            # Making a task may take as long as reading its rows: it is done while the workers work.
            self._next_attempt = self._next_attempt or self._make_attempt()
            for ready in connection.wait(list(self._busy)):
                worker = self._busy[ready]  # type: ignore[index]  # only connections are waited for
                assert worker.attempt is not None
                try:
                    is_outcome, payload = worker.connection.recv()
                except (EOFError, OSError):  # OSError: it died while it sent
                    self._replace_dead(worker)
                    continue
                task = worker.attempt.task
                if not is_outcome:
                    on_message(task, payload)
                    continue
                del self._busy[worker.connection]
                worker.attempt = None
                self._idle.append(worker)
                yield payload.unwrap(task)

    def _take_attempt(self) -> _Attempt[Task] | None:
        if self._restarts:
            return self._restarts.popleft()
        attempt, self._next_attempt = self._next_attempt or self._make_attempt(), None
        return attempt

    def _make_attempt(self) -> _Attempt[Task] | None:
        return next((_Attempt(task) for task in self._tasks), None)

    def _replace_dead(self, worker: _Worker[Task, Result]) -> None:
        """Put the task of a dead process back, or give up."""
        assert worker.attempt is not None
        del self._busy[worker.connection]
        cause = worker.describe_end()
        worker.connection.close()
        if worker.attempt.n_starts >= MAX_ATTEMPTS:
            raise WorkerDied(worker.attempt.task, cause)
        self._restarts.append(worker.attempt)

    def close(self) -> None:
        """Let the idle processes end."""
        for worker in self._idle:
            worker.connection.close()
        for worker in self._idle:
            worker.process.join()

    def cancel(self) -> None:
        """Interrupt the running tasks, and wait for them; kill what does not end within the grace period."""
        workers = [*self._busy.values(), *self._idle]
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid or 0, signal.SIGINT)
            worker.connection.close()
        deadline = time.monotonic() + CANCEL_GRACE_S
        try:
            for worker in workers:
                worker.process.join(timeout=max(0.0, deadline - time.monotonic()))
        finally:  # also at a second interrupt
            for worker in workers:
                worker.process.kill()


def _serve_tasks(tasks: connection.Connection) -> None:
    """Run the tasks that arrive until the connection is closed; the main function of a worker process."""
    # Ctrl-C reaches the terminal's whole foreground group; only the parent should get it, and pass it on once.
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    sending = threading.Lock()

    def send(is_outcome: bool, payload: Any) -> None:
        with sending, suppress(BrokenPipeError):  # the parent does not read any more: it is cancelling
            tasks.send((is_outcome, payload))

    with suppress(EOFError, KeyboardInterrupt):
        while True:
            function, task = tasks.recv()
            send(True, _ensure_picklable(run_task(function, task, lambda message: send(False, message))))


def _ensure_picklable(outcome: Outcome[Any]) -> Outcome[Any]:
    """Return the outcome, or one that says why it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(outcome))  # noqa: S301  # its own bytes
    except Exception as error:
        text = outcome.traceback or f"its result cannot be sent: {error!r}"
        return Outcome(error=TaskFailed(text))
    return outcome


def _exit_with_parent() -> None:
    """Exit when the parent ends, even if it is killed: an orphaned worker would keep its leases."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
