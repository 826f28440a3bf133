"""Writes answers to the log: one writer, a commit every second or every few hundred answers.

An answer is durable only after `append` has returned for it. A kill costs at most the answers of one flush.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from mvl_assets.lake.schemas.rows import Answer


class AnswerWriter:
    """Buffers the answers of one run and flushes them.

    Args:
        append: Stores a batch durably.
        on_durable: Called with each stored batch.
        flush_answers: Largest batch.
        flush_interval_s: Longest time that an answer waits.
    """

    def __init__(
        self,
        append: Callable[[Sequence[Answer]], int],
        on_durable: Callable[[Sequence[Answer]], None],
        flush_answers: int,
        flush_interval_s: float,
    ) -> None:
        self._append = append
        self._on_durable = on_durable
        self._flush_answers = flush_answers
        self._flush_interval_s = flush_interval_s
        self._buffer: list[Answer] = []
        # Whether a commit was begun whose end was not seen yet, and how many answers it has stored (log thread).
        self._is_committing = False
        self._n_stored = 0
        self._batch_ready = asyncio.Event()
        self._flush_lock = asyncio.Lock()

    def add(self, answer: Answer) -> None:
        self._buffer.append(answer)
        if len(self._buffer) >= self._flush_answers:
            self._batch_ready.set()

    async def run_flush_loop(self, run_on_log_thread: Callable[..., asyncio.Future[int]]) -> None:
        """Flush until cancelled, in the thread of the log. Errors of the log are raised."""
        while True:
            # Not `asyncio.wait_for`: before Python 3.12 it may swallow a cancellation that comes as the event is set.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_interval_s):
                    await self._batch_ready.wait()
            await self.flush(run_on_log_thread)

    async def flush(self, run_on_log_thread: Callable[..., asyncio.Future[int]]) -> None:
        """Store what has come in until now. What comes in meanwhile waits: it would make a commit of few rows."""
        async with self._flush_lock:
            if self._is_committing:
                # A flush was cancelled while its commit went on in the thread: wait behind it, and store nothing twice.
                await run_on_log_thread(_wait_behind_commit)
                self._drop_stored()
            n_pending = len(self._buffer)
            while n_pending > 0:
                batch = self._buffer[: min(n_pending, self._flush_answers)]
                self._is_committing = True
                await run_on_log_thread(self._store, batch)
                self._drop_stored()
                n_pending -= len(batch)
            if len(self._buffer) < self._flush_answers:
                self._batch_ready.clear()

    def _store(self, batch: Sequence[Answer]) -> int:
        """Append a batch, in the thread of the log."""
        n_new = self._append(batch)
        self._n_stored += len(batch)
        return n_new

    def _drop_stored(self) -> None:
        """Forget the answers that are stored."""
        batch = self._buffer[: self._n_stored]
        del self._buffer[: self._n_stored]
        self._is_committing, self._n_stored = False, 0
        if batch:
            self._on_durable(batch)


def _wait_behind_commit() -> int:
    return 0
