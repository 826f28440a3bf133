"""What a run still has to ask: reads requests, leaves out what is answered or asked already, loads their pictures.

Belongs here: everything before a request is ready to be sent, bounded in rows and in bytes. Sending is `engine.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint_client import PendingRequest
from mvl_assets.inference.images import FetchImages, ImageFault, load_images
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import RunOutcome
from mvl_assets.inference.request import Request
from mvl_assets.lake.answers import AnswerLog

INITIAL_CHUNK_SIZE, MAX_CHUNK_SIZE = 64, 1024
IMAGE_BATCH_SIZE = 16
# Reading stops this often to let a commit through.
MAX_READ_S = 0.1


class RequestQueue:
    """The requests of one run on their way in. Make it inside the event loop it is to live in.

    `run_on_log_thread` runs a blocking call in the log's own thread. `on_progress` is called when there may be more to send, `fail`
    for a request whose picture cannot be had.
    """

    def __init__(
        self,
        log: AnswerLog,
        fetch_images: FetchImages | None,
        max_image_side: int,
        options: EngineOptions,
        outcome: RunOutcome,
        run_on_log_thread: Callable[..., asyncio.Future[Any]],
        on_progress: Callable[[], None],
        fail: Callable[[PendingRequest, str, str], None],
    ) -> None:
        self._log = log
        self._fetch_images = fetch_images
        self._max_image_side = max_image_side
        self._options = options
        self._outcome = outcome
        self._run_on_log_thread = run_on_log_thread
        self._on_progress = on_progress
        self._fail = fail
        self.all_read = False
        # Items neither answered nor failed; what of them may be sent now; what has to wait for its pictures.
        self.n_open = 0
        self.ready: deque[PendingRequest] = deque()
        self._awaiting_images: deque[PendingRequest] = deque()
        # Keys read and not yet durable; keys that failed.
        self._open_keys: set[str] = set()
        self._failed_keys: set[str] = set()
        self._image_bytes = 0
        self._capacity_available = asyncio.Event()
        self._load_requested = asyncio.Event()

    @property
    def is_drained(self) -> bool:
        """Nothing is left to be sent, but for what comes back to be sent again."""
        return self.all_read and not self.ready and not self._awaiting_images

    # -- in --------------------------------------------------------------------------------------------------------

    async def read_requests(self, requests: Iterator[Request | None]) -> None:
        chunk_size = INITIAL_CHUNK_SIZE
        while not self.all_read:
            while len(self._open_keys) + chunk_size > self._options.max_open_requests and self._open_keys:
                self._capacity_available.clear()
                await self._capacity_available.wait()
            chunk, is_last = await self._run_on_log_thread(_read_chunk, requests, chunk_size)
            if chunk:
                await self._dedupe_and_enqueue(chunk)
            chunk_size = min(chunk_size * 2, MAX_CHUNK_SIZE, max(1, self._options.max_open_requests // 2))
            self.all_read = is_last
            self._on_progress()

    async def _dedupe_and_enqueue(self, chunk: list[Request]) -> None:
        self._outcome.requested += len(chunk)
        new_requests: dict[str, Request] = {}
        for request in chunk:
            # Asked before the log is: a key that leaves the open set from here on is in the log by then.
            if request.key in self._open_keys or request.key in self._failed_keys or request.key in new_requests:
                self._outcome.deduplicated += 1
            else:
                new_requests[request.key] = request
        answered = await self._run_on_log_thread(self._log.find_answered, list(new_requests)) if new_requests else set()
        self._outcome.cache_hits += len(answered)
        for key, request in new_requests.items():
            if key in answered:
                continue
            pending = PendingRequest(request)
            self._open_keys.add(key)
            self.n_open += 1
            if not request.image_ids:
                self.ready.append(pending)
            elif self._fetch_images is None:
                raise MvlError("a request holds a picture, and no way to fetch pictures was given")
            else:
                self._awaiting_images.append(pending)
                self._load_requested.set()

    async def load_pending_images(self) -> None:
        """Keeps loaded pictures below `max_image_bytes`, give or take the batches under way. Several may run."""
        assert self._fetch_images is not None
        while True:
            if not self._awaiting_images or self._image_bytes >= self._options.max_image_bytes:
                self._load_requested.clear()
                await self._load_requested.wait()
                continue
            count = min(IMAGE_BATCH_SIZE, len(self._awaiting_images))
            batch = [self._awaiting_images.popleft() for _ in range(count)]
            image_ids = [image_id for pending in batch for image_id in pending.request.image_ids]
            images = await asyncio.to_thread(load_images, self._fetch_images, image_ids, self._max_image_side)
            for item in batch:
                self._enqueue_loaded(item, images)
            self._on_progress()

    def _enqueue_loaded(self, pending: PendingRequest, images: dict[str, bytes | ImageFault]) -> None:
        for image_id in pending.request.image_ids:
            image = images[image_id]
            if isinstance(image, ImageFault):
                self._fail(pending, image.error, image.message)
                return
            pending.images[image_id] = image
        pending.n_bytes = sum(len(data) for data in pending.images.values())
        self._image_bytes += pending.n_bytes
        self.ready.append(pending)

    # -- out -------------------------------------------------------------------------------------------------------

    def mark_settled(self, pending: PendingRequest) -> None:
        """It is answered or has failed: its pictures are needed no more."""
        self.n_open -= 1
        if pending.n_bytes:
            self._image_bytes -= pending.n_bytes
            pending.images = {}
            self._load_requested.set()

    def mark_durable(self, keys: Iterable[str]) -> None:
        self._open_keys.difference_update(keys)
        self._capacity_available.set()

    def mark_failed(self, key: str) -> None:
        self._failed_keys.add(key)
        self._open_keys.discard(key)
        self._capacity_available.set()


def _read_chunk(requests: Iterator[Request | None], max_size: int) -> tuple[list[Request], bool]:
    """At most `max_size` requests, fewer when they come slowly, and whether that was all."""
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
