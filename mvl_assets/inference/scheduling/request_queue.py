"""The requests of a run until they are sent: reading and deduplicating, bounded in number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import RunOutcome
from mvl_assets.inference.request import Request
from mvl_assets.inference.scheduling.affinity import AffinityGrouper
from mvl_assets.inference.scheduling.image_loader import ImageLoader
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from mvl_assets.lake.answers import AnswerLog

INITIAL_CHUNK_SIZE, MAX_CHUNK_SIZE = 64, 1024
# Reading stops this often to let a commit through.
MAX_READ_S = 0.1


class RequestQueue:
    """The open requests of one run. Create it inside the run's event loop.

    Args:
        ready: Takes the requests that may be sent.
        log: Holds the answers of earlier runs.
        loader: Loads the images of requests; None where no request holds one.
        options: The bound on open requests.
        outcome: Its counts of requested, cached and deduplicated requests are kept up to date.
        run_on_log_thread: Runs a blocking call in the thread of the log.
        on_progress: Called when there may be more to send.

    Attributes:
        all_read: Whether the iterable has ended.
        n_open: Requests that are neither answered nor failed.
    """

    def __init__(
        self,
        ready: ReadyQueue,
        log: AnswerLog,
        loader: ImageLoader | None,
        options: EngineOptions,
        outcome: RunOutcome,
        run_on_log_thread: Callable[..., asyncio.Future[Any]],
        on_progress: Callable[[], None],
    ) -> None:
        self._log = log
        self._loader = loader
        self._options = options
        self._outcome = outcome
        self._run_on_log_thread = run_on_log_thread
        self._on_progress = on_progress
        self.all_read = False
        self.n_open = 0
        self._ready = ready
        # Keys read and not yet durable; keys that failed.
        self._open_keys: set[str] = set()
        self._failed_keys: set[str] = set()
        self._grouper = AffinityGrouper()
        self._capacity_available = asyncio.Event()

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left to be sent, except for what is sent again."""
        return self.all_read and not self._ready and (self._loader is None or self._loader.is_idle)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def read_requests(self, requests: Iterator[Request | None]) -> None:
        """Read the iterable to its end, no further ahead than `max_open_requests`."""
        chunk_size = INITIAL_CHUNK_SIZE
        while not self.all_read:
            while len(self._open_keys) + chunk_size > self._options.max_open_requests and self._open_keys:
                self._capacity_available.clear()
                await self._capacity_available.wait()
            chunk, is_last = await self._run_on_log_thread(read_chunk, requests, chunk_size)
            if chunk:
                await self._dedupe_and_enqueue(chunk)
            chunk_size = min(chunk_size * 2, MAX_CHUNK_SIZE, max(1, self._options.max_open_requests // 2))
            self.all_read = is_last
            self._on_progress()

    async def _dedupe_and_enqueue(self, chunk: list[Request]) -> None:
        self._outcome.requested += len(chunk)
        new_requests: dict[str, Request] = {}
        for request in chunk:
            # Looked up before the log: a key that leaves the open set from here on is in the log by then.
            if request.key in self._open_keys or request.key in self._failed_keys or request.key in new_requests:
                self._outcome.deduplicated += 1
            else:
                new_requests[request.key] = request
        answered = await self._run_on_log_thread(self._log.find_answered, list(new_requests)) if new_requests else set()
        self._outcome.cache_hits += len(answered)
        for key, request in new_requests.items():
            if key in answered:
                continue
            pending = PendingRequest(request, self._grouper.compute_affinity(request))
            self._open_keys.add(key)
            self.n_open += 1
            if not request.image_ids:
                self._ready.append(pending)
            elif self._loader is None:
                raise MvlError("a request holds an image, and no way to fetch images was given")
            else:
                self._loader.add(pending)

    # -- settling ------------------------------------------------------------------------------------------------------

    def mark_settled(self, pending: PendingRequest) -> None:
        """Drop the images of a request that is answered or has failed."""
        self.n_open -= 1
        if self._loader is not None:
            self._loader.release(pending)

    def mark_durable(self, keys: Iterable[str]) -> None:
        """Close requests whose answers are stored: from here on the log knows them."""
        self._open_keys.difference_update(keys)
        self._capacity_available.set()

    def mark_failed(self, key: str) -> None:
        """Close a request that has failed: an equal one is not sent in this run."""
        self._failed_keys.add(key)
        self._open_keys.discard(key)
        self._capacity_available.set()


def read_chunk(requests: Iterator[Request | None], max_size: int) -> tuple[list[Request], bool]:
    """Return at most `max_size` requests, fewer when they come slowly, and whether the iterable has ended."""
    chunk: list[Request] = []
    deadline = time.monotonic() + MAX_READ_S
    while len(chunk) < max_size and time.monotonic() < deadline:
        try:
            request = next(requests)
        except StopIteration:
            return chunk, True
        if request is not None:
            chunk.append(request)
    return chunk, False
