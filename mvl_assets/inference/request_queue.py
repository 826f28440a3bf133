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
from mvl_assets.inference.endpoint_client import Item
from mvl_assets.inference.images import FetchPictures, PictureFault, load_pictures
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Outcome
from mvl_assets.inference.request import Request
from mvl_assets.lake.answers import AnswerLog

FIRST_CHUNK, LARGEST_CHUNK = 64, 1024
PICTURE_BATCH = 16
# Reading stops this often to let a commit through.
SLICE_S = 0.1


class Intake:
    """The requests of one run on their way in. Make it inside the event loop it is to live in.

    `in_thread` runs a blocking call in the log's own thread. `on_more` is called when there may be more to send, `fail`
    for a request whose picture cannot be had.
    """

    def __init__(
        self,
        log: AnswerLog,
        fetch: FetchPictures | None,
        longest_side: int,
        options: EngineOptions,
        outcome: Outcome,
        in_thread: Callable[..., asyncio.Future[Any]],
        on_more: Callable[[], None],
        fail: Callable[[Item, str, str], None],
    ) -> None:
        self._log = log
        self._fetch = fetch
        self._longest_side = longest_side
        self._options = options
        self._outcome = outcome
        self._in_thread = in_thread
        self._on_more = on_more
        self._fail = fail
        self.all_read = False
        # Items neither answered nor failed; what of them may be sent now; what has to wait for its pictures.
        self.unfinished = 0
        self.ready: deque[Item] = deque()
        self._unloaded: deque[Item] = deque()
        # Keys read and not yet durable; keys that failed.
        self._open_keys: set[str] = set()
        self._failed_keys: set[str] = set()
        self._bytes = 0
        self._room = asyncio.Event()
        self._to_load = asyncio.Event()

    @property
    def exhausted(self) -> bool:
        """Nothing is left to be sent, but for what comes back to be sent again."""
        return self.all_read and not self.ready and not self._unloaded

    # -- in --------------------------------------------------------------------------------------------------------

    async def read(self, requests: Iterator[Request | None]) -> None:
        size = FIRST_CHUNK
        while not self.all_read:
            while len(self._open_keys) + size > self._options.max_rows and self._open_keys:
                self._room.clear()
                await self._room.wait()
            chunk, ended = await self._in_thread(_take, requests, size)
            if chunk:
                await self._admit(chunk)
            size = min(size * 2, LARGEST_CHUNK, max(1, self._options.max_rows // 2))
            self.all_read = ended
            self._on_more()

    async def _admit(self, chunk: list[Request]) -> None:
        self._outcome.wanted += len(chunk)
        fresh: dict[str, Request] = {}
        for request in chunk:
            # Asked before the log is: a key that leaves the open set from here on is in the log by then.
            if request.key in self._open_keys or request.key in self._failed_keys or request.key in fresh:
                self._outcome.equal += 1
            else:
                fresh[request.key] = request
        answered = await self._in_thread(self._log.answered, list(fresh)) if fresh else set()
        self._outcome.reused += len(answered)
        for key, request in fresh.items():
            if key in answered:
                continue
            item = Item(request)
            self._open_keys.add(key)
            self.unfinished += 1
            if not request.images:
                self.ready.append(item)
            elif self._fetch is None:
                raise MvlError("a request holds a picture, and no way to fetch pictures was given")
            else:
                self._unloaded.append(item)
                self._to_load.set()

    async def load(self) -> None:
        """Keeps loaded pictures below `max_bytes`, give or take the batches under way. Several may run."""
        assert self._fetch is not None
        while True:
            if not self._unloaded or self._bytes >= self._options.max_bytes:
                self._to_load.clear()
                await self._to_load.wait()
                continue
            count = min(PICTURE_BATCH, len(self._unloaded))
            batch = [self._unloaded.popleft() for _ in range(count)]
            ids = [image_id for item in batch for image_id in item.request.images]
            loaded = await asyncio.to_thread(load_pictures, self._fetch, ids, self._longest_side)
            for item in batch:
                self._loaded(item, loaded)
            self._on_more()

    def _loaded(self, item: Item, loaded: dict[str, bytes | PictureFault]) -> None:
        for image_id in item.request.images:
            picture = loaded[image_id]
            if isinstance(picture, PictureFault):
                self._fail(item, picture.error, picture.message)
                return
            item.pictures[image_id] = picture
        item.weight = sum(len(data) for data in item.pictures.values())
        self._bytes += item.weight
        self.ready.append(item)

    # -- out -------------------------------------------------------------------------------------------------------

    def finished(self, item: Item) -> None:
        """It is answered or has failed: its pictures are needed no more."""
        self.unfinished -= 1
        if item.weight:
            self._bytes -= item.weight
            item.pictures = {}
            self._to_load.set()

    def durable(self, keys: Iterable[str]) -> None:
        self._open_keys.difference_update(keys)
        self._room.set()

    def failed(self, key: str) -> None:
        self._failed_keys.add(key)
        self._open_keys.discard(key)
        self._room.set()


def _take(requests: Iterator[Request | None], most: int) -> tuple[list[Request], bool]:
    """At most `most` requests, fewer when they come slowly, and whether that was all."""
    chunk: list[Request] = []
    until = time.monotonic() + SLICE_S
    while len(chunk) < most and time.monotonic() < until:
        try:
            request = next(requests)
        except StopIteration:
            return chunk, True
        if request is not None:
            chunk.append(request)
    return chunk, False
