"""The rhythm of commits: what comes in while one is made waits for the next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mvl_assets.inference.scheduling.answer_writer import AnswerWriter
from mvl_assets.lake.schemas.rows import Answer
from tests.lake.rows import answer
from tests.patience import PATIENCE_S


def test_answers_that_come_during_a_commit_wait_for_the_next() -> None:
    commits: list[int] = []
    durable: list[Answer] = []

    async def run() -> None:
        writer = AnswerWriter(lambda batch: len(batch), durable.extend, flush_answers=100, flush_interval_s=60.0)

        async def in_thread(append: Callable[[Sequence[Answer]], int], batch: Sequence[Answer]) -> Any:
            for number in range(10):
                writer.add(answer(1000 * len(commits) + number))
            commits.append(append(batch))

        for number in range(250):
            writer.add(answer(number))
        await writer.flush(in_thread)  # type: ignore[arg-type]
        assert commits == [100, 100, 50]
        assert len(durable) == 250
        await writer.flush(in_thread)  # type: ignore[arg-type]
        assert commits == [100, 100, 50, 30]

    asyncio.run(run())


def test_a_writer_that_is_cancelled_as_its_buffer_fills_ends() -> None:
    async def run() -> None:
        writer = AnswerWriter(len, lambda batch: None, flush_answers=1, flush_interval_s=60.0)

        async def in_thread(append: Callable[[Sequence[Answer]], int], batch: Sequence[Answer]) -> Any:
            return append(batch)

        task = asyncio.create_task(writer.run_flush_loop(in_thread))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        writer.add(answer(1))
        await asyncio.sleep(0)  # what waits for the event has seen it, what waits for that has not
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.cancelled()

    asyncio.run(run())


def test_a_flush_that_is_cancelled_during_its_commit_stores_nothing_twice() -> None:
    stored: list[Answer] = []
    durable: list[Answer] = []
    begun, may_end = threading.Event(), threading.Event()

    def append(batch: Sequence[Answer]) -> int:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        stored.extend(batch)
        return len(batch)

    async def run() -> None:
        writer = AnswerWriter(append, durable.extend, flush_answers=100, flush_interval_s=60.0)
        with ThreadPoolExecutor(1) as thread:

            def in_thread(function: Callable[..., int], *arguments: Any) -> asyncio.Future[int]:
                return asyncio.get_running_loop().run_in_executor(thread, function, *arguments)

            for number in range(10):
                writer.add(answer(number))
            flush = asyncio.create_task(writer.flush(in_thread))
            await asyncio.to_thread(begun.wait, 10)
            flush.cancel()
            await asyncio.wait([flush])
            assert flush.cancelled() and not durable
            writer.add(answer(10))
            may_end.set()
            await writer.flush(in_thread)

    asyncio.run(run())
    assert [row.request_key for row in stored] == [answer(number).request_key for number in range(11)]
    assert durable == stored
