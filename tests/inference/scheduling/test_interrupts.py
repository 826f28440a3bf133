"""What a signal handler raises ends the run from the event loop, and never gets lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from mvl_assets.inference.scheduling.interrupts import InterruptGuard
from mvl_assets.inference.scheduling.run_context import RunTasks


class Interrupted(BaseException):
    """Stands for the interrupt that Dagster raises in a cancelled step."""


def interrupt(*_: object) -> None:
    raise Interrupted


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    original = signal.signal(signal.SIGTERM, interrupt)
    yield
    assert signal.getsignal(signal.SIGTERM) is interrupt, "the handler is back in its place"
    signal.signal(signal.SIGTERM, original)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_is_not_raised_where_it_could_be_taken_for_another_fault() -> None:
    swallowed: list[BaseException] = []

    async def run(guard: InterruptGuard) -> None:
        tasks = RunTasks()
        guard.attach(tasks)
        try:
            kill_self()
        except BaseException as error:
            swallowed.append(error)
        await tasks.wait_until_finished()

    with pytest.raises(Interrupted), InterruptGuard() as guard:
        asyncio.run(run(guard))
    assert not swallowed


def test_an_interrupt_before_the_run_and_a_second_one_are_raised_at_once() -> None:
    with InterruptGuard(), pytest.raises(Interrupted):
        kill_self()

    async def run(guard: InterruptGuard) -> None:
        guard.attach(RunTasks())
        kill_self()
        with pytest.raises(Interrupted):
            kill_self()

    with pytest.raises(Interrupted), InterruptGuard() as guard:
        asyncio.run(run(guard))


def test_an_interrupt_after_the_run_has_finished_is_raised_when_it_is_left() -> None:
    async def run(guard: InterruptGuard) -> None:
        tasks = RunTasks()
        guard.attach(tasks)
        tasks.finish()
        await tasks.wait_until_finished()
        kill_self()
        await asyncio.sleep(0.01)

    with pytest.raises(Interrupted), InterruptGuard() as guard:
        asyncio.run(run(guard))

    async def end(guard: InterruptGuard) -> None:
        guard.attach(RunTasks())

    with pytest.raises(Interrupted), InterruptGuard() as guard:
        asyncio.run(end(guard))
        kill_self()
