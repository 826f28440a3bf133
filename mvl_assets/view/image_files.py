"""Images of the lake as a browser gets them: the source's bytes where it can show them, a JPEG otherwise."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import ImageError, build_thumbnail

THUMBNAIL_SIDE, MAX_SIDE = 480, 4096
MAX_CACHED_THUMBNAILS = 512

# By the first bytes, not by what a table says: with `nosniff` a wrong type shows nothing.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes of an image, and their type."""

    data: bytes
    media_type: str


class ImageShelf:
    """Reads images by source and id; small ones are remembered."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self.read_thumbnail = lru_cache(MAX_CACHED_THUMBNAILS)(self._read_thumbnail)

    def read(self, source: str, image_id: str) -> ImageFile | None:
        """Return an image in full size; None if it is not stored, or nothing can show it."""
        data = self._read_bytes(source, image_id)
        if data is None:
            return None
        media_type = detect_media_type(data)
        return ImageFile(data, media_type) if media_type else _convert(data, MAX_SIDE)

    def _read_thumbnail(self, source: str, image_id: str) -> ImageFile | None:
        data = self._read_bytes(source, image_id)
        return None if data is None else _convert(data, THUMBNAIL_SIDE)

    def _read_bytes(self, source: str, image_id: str) -> bytes | None:
        # The index of a source's images is made by the first reader, and shared by the others.
        with self._lock:
            return self._lake.get_images(source).read_stored_images([image_id]).get(image_id)


def detect_media_type(data: bytes) -> str | None:
    """Return the type of an image that every browser shows; None for others."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for start, media_type in _SIGNATURES if data.startswith(start)), None)


def _convert(data: bytes, max_side: int) -> ImageFile | None:
    try:
        return ImageFile(build_thumbnail(data, max_side), "image/jpeg")
    except ImageError:
        return None
