"""Loads the images of requests before they are sent: in several threads, each image once, bounded in bytes."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.images import FetchImages, ImageFault, load_images

# Decoding and scaling run outside Python's lock, so a thread per core is of use; each holds a batch of images.
MIN_LOADERS, MAX_LOADERS = 2, 16
MAX_BATCH_REQUESTS = 16


@dataclass(slots=True)
class _HeldImage:
    """Prepared bytes, and the number of open requests that share them."""

    data: bytes
    n_requests: int = 0


class ImageLoader:
    """The images of one run's open requests.

    An image is loaded, kept and counted once for all open requests about it: the criteria of one rewrite, or several
    questions about one image.

    Args:
        fetch_images: Returns original bytes by image id.
        max_image_side: Longest side, in pixels, of the images that are sent.
        max_image_bytes: Bytes of prepared images beyond which no more are loaded.
        on_loaded: Called with each request that has all its images.
        on_progress: Called after some of them.
        fail: Called with a request whose image cannot be loaded, the error and the message.
    """

    def __init__(
        self,
        fetch_images: FetchImages,
        max_image_side: int,
        max_image_bytes: int,
        on_loaded: Callable[[PendingRequest], None],
        on_progress: Callable[[], None],
        fail: Callable[[PendingRequest, str, str], None],
    ) -> None:
        self._fetch_images = fetch_images
        self._max_image_side = max_image_side
        self._max_image_bytes = max_image_bytes
        self._on_loaded = on_loaded
        self._on_progress = on_progress
        self._fail = fail
        self.n_loaders = compute_loader_count()
        self._awaiting: deque[PendingRequest] = deque()
        # Images that are being loaded, with the requests that hold them.
        self._loading: dict[str, list[PendingRequest]] = {}
        self._held: dict[str, _HeldImage] = {}
        self.held_bytes = 0
        # All images so far: those that are being loaded count with the mean size.
        self._n_loaded = self._loaded_bytes = 0
        self._load_requested = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for an image."""
        return not self._awaiting and not self._loading

    def add(self, pending: PendingRequest) -> None:
        """Load the images of a request."""
        self._awaiting.append(pending)
        self._load_requested.set()

    def release(self, pending: PendingRequest) -> None:
        """Drop the images of a request that is answered or has failed."""
        for image_id in pending.images:
            held = self._held[image_id]
            held.n_requests -= 1
            if not held.n_requests:
                del self._held[image_id]
                self.held_bytes -= len(held.data)
        pending.images = {}
        if self._may_load():
            self._load_requested.set()

    async def run_loader(self) -> None:
        """Load images until cancelled. `n_loaders` of these tasks run at a time."""
        while True:
            if self._may_load():
                await self._load_batch()
                self._on_progress()
            else:
                self._load_requested.clear()
                await self._load_requested.wait()

    def _may_load(self) -> bool:
        mean_bytes = self._loaded_bytes / self._n_loaded if self._n_loaded else 0
        return bool(self._awaiting) and self.held_bytes + len(self._loading) * mean_bytes < self._max_image_bytes

    async def _load_batch(self) -> None:
        # A few requests are shared out among the loaders.
        count = min(MAX_BATCH_REQUESTS, -(-len(self._awaiting) // self.n_loaders))
        new_ids: list[str] = []
        for pending in [self._awaiting.popleft() for _ in range(count)]:
            for image_id in dict.fromkeys(pending.request.image_ids):
                if image_id in self._held:
                    self._attach(image_id, pending)
                    continue
                if image_id not in self._loading:
                    new_ids.append(image_id)
                self._loading.setdefault(image_id, []).append(pending)
            self._finish_if_complete(pending)
        if new_ids:
            images = await asyncio.to_thread(load_images, self._fetch_images, new_ids, self._max_image_side)
            for image_id in new_ids:
                self._store(image_id, images[image_id])

    def _store(self, image_id: str, image: bytes | ImageFault) -> None:
        """Give an image to the requests that wait for it."""
        waiting = [pending for pending in self._loading.pop(image_id) if not pending.is_settled]
        if isinstance(image, ImageFault):
            for pending in waiting:
                self._fail(pending, image.error, image.message)
            return
        self._n_loaded += 1
        self._loaded_bytes += len(image)
        if waiting:
            self._held[image_id] = _HeldImage(image)
            self.held_bytes += len(image)
        for pending in waiting:
            self._attach(image_id, pending)
            self._finish_if_complete(pending)

    def _attach(self, image_id: str, pending: PendingRequest) -> None:
        held = self._held[image_id]
        held.n_requests += 1
        pending.images[image_id] = held.data

    def _finish_if_complete(self, pending: PendingRequest) -> None:
        if all(image_id in pending.images for image_id in pending.request.image_ids):
            self._on_loaded(pending)


def compute_loader_count() -> int:
    """Return how many batches of images are loaded at a time: one per core of this process, within bounds."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_LOADERS, max(MIN_LOADERS, n_cores))
