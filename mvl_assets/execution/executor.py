"""The interface of what runs tasks, and the parts that every backend shares."""

from __future__ import annotations

import os
import textwrap
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from mvl_assets.errors import InfrastructureError

Task = TypeVar("Task")
Result = TypeVar("Result")

Report = Callable[[Any], None]
"""Sends a message about a running task to the process that started it. Of several quick ones the last may be kept."""

MAX_ATTEMPTS = 3
"""How often a task is started that loses its worker each time."""

CANCEL_GRACE_S = 30.0
"""How long a cancelled task may take to store what it has."""


class WorkerDied(InfrastructureError):
    """The processes that ran a task were killed, as often as it was started."""

    def __init__(self, task: object, cause: str) -> None:
        super().__init__(
            f"the process that ran {describe_task(task)} was killed {MAX_ATTEMPTS} times, lastly by {cause}",
            hint="usually because memory ran out: run fewer at once (executor.processes in the profile); "
            "what was stored is kept",
        )


class TaskFailed(Exception):
    """A task raised an error that cannot be sent between processes; the message holds its traceback."""


class Executor(ABC):
    """Runs one function over many tasks.

    Functions, tasks and results must be picklable, and the function importable by its name. A task may be started
    again after its worker has died, so it must be safe to repeat. An error of a task is raised as it is, with the task
    in a note, and cancels the others.
    """

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Yield the results of `function(task)` as the tasks end.

        Closing the generator, or an error or interrupt inside it, cancels the tasks that have not ended: each gets a
        `KeyboardInterrupt`, and `CANCEL_GRACE_S` to end.

        Raises:
            WorkerDied: A task has lost its worker `MAX_ATTEMPTS` times.
            TaskFailed: A task raised an error that cannot be pickled.
        """
        return self.run_reporting(partial(_drop_report, function), tasks, _ignore_message)

    @abstractmethod
    def run_reporting(
        self,
        function: Callable[[Task, Report], Result],
        tasks: Iterable[Task],
        on_message: Callable[[Task, Any], None],
    ) -> Generator[Result, None, None]:
        """Do as `run` does, with a function that may send messages while it runs.

        Args:
            function: Called with a task and its `Report`, which any thread may use.
            tasks: The tasks.
            on_message: Called in this process with the task and a message, between results.
        """


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """How a task ended, as its worker tells it: a result, or an error with its traceback."""

    result: Result | None = None
    error: BaseException | None = None
    traceback: str = ""

    def unwrap(self, task: object) -> Result:
        """Return the result, or raise the error with a note about its task."""
        if self.error is not None:
            self.error.add_note(f"raised by the task {describe_task(task)}\n{self.traceback}".rstrip())
            raise self.error
        return self.result  # type: ignore[return-value]  # None is a result, too


def run_task(function: Callable[[Task, Report], Result], task: Task, report: Report) -> Outcome[Result]:
    """Run a task in a worker and return its outcome; only an interrupt is raised."""
    try:
        return Outcome(result=function(task, report))
    except Exception as error:
        return Outcome(error=error, traceback=traceback.format_exc())


def describe_task(task: object) -> str:
    """Return a task as a few words."""
    return textwrap.shorten(str(task), 160, placeholder=" ...")


def count_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def _drop_report(function: Callable[[Task], Result], task: Task, report: Report) -> Result:
    return function(task)


def _ignore_message(task: object, message: object) -> None:
    """Take a message and do nothing."""
