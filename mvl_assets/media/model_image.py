"""Prepares a stored image for a served model: in standard form, no larger than the model can use."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image

from mvl_assets.media.image import compute_standard_size, encode_image, standardise_image
from mvl_assets.media.image_formats import IMAGE_FORMATS

# Formats every server decodes; images in them that need no change are sent unchanged.
_PASSTHROUGH_FORMATS = ("JPEG", "PNG")


def prepare_image(data: bytes, max_image_side: int) -> bytes:
    """Return JPEG or PNG bytes of the standard form, scaled down to a longest side of `max_image_side` pixels.

    An image that needs no change is returned as it is after a check of its header, which costs a hundredth of a decode.

    Raises:
        ImageError: The bytes are not a usable image.
    """
    if _is_ready(data, max_image_side):
        return data
    with _DECODING.hold(_count_pixels(data)):
        image = standardise_image(data)
        if max(image.size) > max_image_side:
            image.thumbnail((max_image_side, max_image_side), Image.Resampling.LANCZOS)
        return encode_image(image)


class PixelBudget:
    """Bounds the pixels that all threads together hold decoded; an image beyond the bound is decoded alone."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._held_pixels = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, n_pixels: int) -> Iterator[None]:
        """Wait until the pixels fit in, and hold them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held_pixels or self._held_pixels + n_pixels <= self._max_pixels)
            self._held_pixels += n_pixels
        try:
            yield
        finally:
            with self._changed:
                self._held_pixels -= n_pixels
                self._changed.notify_all()


# About 600 MB with the copies that are made on the way: one image of the largest size, or fifty of 1600 x 1200.
_DECODING = PixelBudget(100_000_000)


def _count_pixels(data: bytes) -> int:
    """Return the number of pixels that the header claims; 0 where `standardise_image` will say what is wrong."""
    try:
        width, height = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS).size
    except Exception:
        return 0
    return width * height


def _is_ready(data: bytes, max_image_side: int) -> bool:
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        return (
            image.format in _PASSTHROUGH_FORMATS
            and image.mode == "RGB"
            and "transparency" not in image.info
            and getattr(image, "n_frames", 1) == 1
            and max(image.size) <= max_image_side
            and compute_standard_size(*image.size).action == "as_is"
            and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        )
    except Exception:  # `standardise_image` then raises what is wrong as an `ImageError`.
        return False
