"""A Ray cluster as an executor. Ray places the tasks and starts those again whose worker or machine is lost.

Every machine of the cluster needs this project at the same version, and reaches the lake and MVL_HOME under the same
names. Settings (`MVL_*`) are handed to the workers, secrets are not: credentials belong to the machines.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.execution.executor import (
    CANCEL_GRACE_S,
    MAX_ATTEMPTS,
    Executor,
    Outcome,
    Report,
    Result,
    Task,
    WorkerDied,
    count_cpus,
    run_task,
)

if TYPE_CHECKING:
    import ray

LOOPBACK = "127.0.0.1"
# Ray's own tables of pending tasks stay small, whatever the number of tasks.
MAX_SUBMITTED = 1_000
POLL_INTERVAL_S = 1.0
# Tasks and results are small; Ray's default is a third of the memory.
OBJECT_STORE_BYTES = 128 << 20
INSTALL_HINT = "pip install 'mvl[ray]' (make setup does), or `executor: {kind: processes}` in the profile"
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASSWORD")


class RayExecutor(Executor):
    """The cluster at `address`, or without one a Ray of this process on this machine's loopback interface.

    Args:
        address: `auto` (the cluster that this machine belongs to), `host:port`, or `ray://host:port`.
        n_tasks: How many tasks may run at once; None for as many as the cluster has CPUs.

    Raises:
        MvlError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, n_tasks: int | None = None) -> None:
        if not is_ray_installed():
            raise MvlError("the profile's executor is Ray, which is not installed", hint=INSTALL_HINT)
        self.address = address
        self.n_tasks = n_tasks

    def run_reporting(
        self,
        function: Callable[[Task, Report], Result],
        tasks: Iterable[Task],
        on_message: Callable[[Task, Any], None],
    ) -> Generator[Result, None, None]:
        import ray

        with connect(self.address, self.n_tasks), ExitStack() as stack:
            mailbox: Any = (
                ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=_build_driver_placement()).remote()
            )
            stack.callback(ray.kill, mailbox)
            run_remotely: Any = ray.remote(_run_remotely)
            remote_function = run_remotely.options(num_cpus=1, max_retries=MAX_ATTEMPTS - 1, retry_exceptions=False)
            environment = collect_environment()
            running: dict[ray.ObjectRef, tuple[int, Task]] = {}
            stack.callback(_cancel, running)
            numbered_tasks = enumerate(tasks)
            while True:
                for number, task in islice(numbered_tasks, (self.n_tasks or MAX_SUBMITTED) - len(running)):
                    ref = remote_function.remote(environment, function, task, mailbox, number)
                    running[ref] = number, task
                if not running:
                    return
                ended, _ = ray.wait(list(running), timeout=POLL_INTERVAL_S)
                tasks_by_number = dict(running.values())
                for number, message in _take_messages(mailbox):
                    if number in tasks_by_number:
                        on_message(tasks_by_number[number], message)
                for ref in ended:
                    _, task = running.pop(ref)
                    yield _get_outcome(ref, task).unwrap(task)


def is_ray_installed() -> bool:
    """Return whether Ray can be imported."""
    return importlib.util.find_spec("ray") is not None


@contextmanager
def connect(address: str | None, n_cpus: int | None = None) -> Iterator[None]:
    """Connect this process to a cluster, or start Ray on this machine for it; a connection that exists is kept.

    What is started here listens on the loopback interface only, without dashboard and usage statistics.

    Args:
        address: See `RayExecutor`.
        n_cpus: How many tasks of one CPU a Ray that is started here takes; None for as many as there are CPUs.

    Raises:
        MvlError: Nothing answers at the address.
    """
    set_ray_environment(address)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=n_cpus or count_cpus(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MvlError(
            f"no connection to a Ray cluster at {address or 'this machine'}: {error}",
            hint="`ray status --address HOST:PORT` says what is there; executor.address in the profile names it",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def set_ray_environment(address: str | None) -> None:
    """Set what Ray reads when it is imported: no usage statistics, and loopback addresses for a Ray of this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None or address.startswith((LOOPBACK, "localhost")):
        # Otherwise Ray replaces a loopback address by the machine's own, and listens on every interface.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def collect_environment() -> dict[str, str]:
    """Return the settings that the workers take over, with absolute folders and without secrets."""
    settings = load_settings()
    environment = {
        name: value for name, value in os.environ.items() if name.startswith("MVL_") and not _SECRET_NAME.search(name)
    }
    return environment | {"MVL_HOME": str(settings.home), "MVL_LAKE": settings.lake_root}


class _Mailbox:
    """An actor beside the driver that keeps the newest message of each task until the driver takes it."""

    def __init__(self) -> None:
        self._messages: dict[int, Any] = {}

    def put(self, number: int, message: Any) -> None:
        """Keep a message of a task."""
        self._messages[number] = message

    def take(self) -> list[tuple[int, Any]]:
        """Return the messages since the last call, with the numbers of their tasks."""
        messages, self._messages = self._messages, {}
        return list(messages.items())


def _run_remotely(
    environment: dict[str, str], function: Callable[[Task, Report], Result], task: Task, mailbox: Any, number: int
) -> Outcome[Result]:
    os.environ.update(environment)
    return run_task(function, task, lambda message: mailbox.put.remote(number, message))


def _get_outcome(ref: ray.ObjectRef, task: object) -> Outcome[Any]:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError:  # not the task's own error, which is part of an outcome
        raise
    except ray.exceptions.RayError as error:
        raise WorkerDied(task, str(error).strip().partition("\n")[0]) from error


def _take_messages(mailbox: Any) -> list[tuple[int, Any]]:
    """Return the messages since the last call; none where the actor is lost, as they are only for people to watch."""
    import ray

    with suppress(ray.exceptions.RayError):
        return ray.get(mailbox.take.remote(), timeout=POLL_INTERVAL_S)
    return []


def _build_driver_placement() -> Any:
    """Return the placement on the driver's own machine, which lives as long as the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _cancel(running: dict[ray.ObjectRef, tuple[int, Any]]) -> None:
    """Interrupt what has not ended, wait for it, and kill what does not end within the grace period."""
    import ray

    refs = list(running)
    if not refs:
        return
    for ref in refs:
        ray.cancel(ref, force=False)
    deadline = time.monotonic() + CANCEL_GRACE_S
    _, unfinished = ray.wait(refs, num_returns=len(refs), timeout=max(0.0, deadline - time.monotonic()))
    for ref in unfinished:
        ray.cancel(ref, force=True)
