"""The rhythm of commits: what comes in while one is made waits for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from mvl_assets.inference.scheduling.answer_writer import AnswerWriter
from mvl_assets.lake.schemas.tables import Answer
from tests.lake.rows import answer


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
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()

    asyncio.run(run())
