"""Pairs of stored images compared by their pixels, each image decoded about once while pairs of it come together."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mvl_assets.lake.images import ImageStore
from mvl_assets.media.copy_detection import ImageScores, SmallView, build_views, compare_images
from mvl_assets.media.image import ImageError

CACHE_SIZE = 512
"""Images whose views are kept, of half a megabyte each at most in most cases."""

CHUNK_BYTES = 32 << 20
MAX_THREADS = 4
"""Files read at once, and threads that decode them."""

IDENTICAL = ImageScores(1.0, 0.0, 0.0)
ImagePair = tuple[str, str]


class ImageComparer:
    """Compares images by id. Images that are gone or cannot be decoded are like no other."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._views: OrderedDict[str, list[SmallView]] = OrderedDict()

    def compare(self, pairs: Sequence[ImagePair]) -> list[ImageScores | None]:
        """Return the scores of each pair, None for images of different shapes."""
        scores: list[ImageScores | None] = []
        for start in range(0, len(pairs), CACHE_SIZE // 2):
            chunk = pairs[start : start + CACHE_SIZE // 2]
            self._load_views({image_id for a, b in chunk if a != b for image_id in (a, b)})
            scores.extend(IDENTICAL if a == b else compare_images(self._views[a], self._views[b]) for a, b in chunk)
        return scores

    def _load_views(self, image_ids: set[str]) -> None:
        for image_id in image_ids & self._views.keys():
            self._views.move_to_end(image_id)
        missing = sorted(image_ids - self._views.keys())
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), "compare") as executor:
            for chunk in _iter_chunks(self._images, missing):
                data_by_id = self._images.read_stored_images(chunk)
                decoded = executor.map(_build_views, (data_by_id.get(image_id, b"") for image_id in chunk))
                self._views.update(zip(chunk, decoded, strict=True))
        while len(self._views) > CACHE_SIZE:
            self._views.popitem(last=False)


def _build_views(data: bytes) -> list[SmallView]:
    try:
        return build_views(data)
    except ImageError:
        return []


def _iter_chunks(images: ImageStore, image_ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of ids whose files have at most `CHUNK_BYTES` together, or of one larger file."""
    ids = list(image_ids)
    sizes = images.read_sizes(ids)
    chunk: list[str] = []
    n_bytes = 0
    for image_id in ids:
        if chunk and n_bytes + sizes.get(image_id, 0) > CHUNK_BYTES:
            yield chunk
            chunk, n_bytes = [], 0
        chunk.append(image_id)
        n_bytes += sizes.get(image_id, 0)
    if chunk:
        yield chunk
