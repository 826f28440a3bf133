"""Answers on their way to the log: one writer, a commit every second or every few hundred rows.

An answer counts as answered only after `append` returned for it. A kill costs at most the answers of one flush.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from mvl_assets.lake.schema import Answer


class AnswerWriter:
    """Buffers answers of one event loop. `in_thread` runs a blocking call in the log's own thread."""

    def __init__(
        self,
        append: Callable[[Sequence[Answer]], int],
        on_durable: Callable[[Sequence[Answer]], None],
        flush_rows: int,
        flush_s: float,
    ) -> None:
        self._append = append
        self._on_durable = on_durable
        self._flush_rows = flush_rows
        self._flush_s = flush_s
        self._buffer: list[Answer] = []
        self._full = asyncio.Event()
        self._flushing = asyncio.Lock()

    def add(self, answer: Answer) -> None:
        self._buffer.append(answer)
        if len(self._buffer) >= self._flush_rows:
            self._full.set()

    async def run(self, in_thread: Callable[..., asyncio.Future[int]]) -> None:
        """Flushes until cancelled. Raises what the log raises."""
        while True:
            # Not `wait_for`: before Python 3.12 it may swallow a cancellation that comes as the event is set.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._full.wait()
            await self.flush(in_thread)

    async def flush(self, in_thread: Callable[..., asyncio.Future[int]]) -> None:
        """Stores what has come in until now. What comes in meanwhile waits: it would make a commit of a few rows."""
        async with self._flushing:
            waiting = len(self._buffer)
            while waiting > 0:
                batch = self._buffer[: min(waiting, self._flush_rows)]
                # Shielded: a cancelled flush must not lose track of a commit that goes on in the thread.
                await asyncio.shield(in_thread(self._append, batch))
                del self._buffer[: len(batch)]
                waiting -= len(batch)
                self._on_durable(batch)
            if len(self._buffer) < self._flush_rows:
                self._full.clear()
