"""Perceptual hashes of an image: pHash, and PDQ with and without the uniform border.

Both are computed from a grey image whose short side is 64 to 127 pixels. On planted copies PDQ finds as candidates what
pHash finds and more (`benchmarks/curation.py`); a border moves all of its bits, so it is removed for a second hash.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

PDQ_SIDE = 64
"""Sides, in pixels, of what PDQ gets. It works on 64 x 64 itself, and Pillow reduces to that with less aliasing."""

MIN_TRIMMED_SIDE = 16
"""Pixels that must be left, or nothing is trimmed."""

FRAME_CONTRAST, CONTENT_CONTRAST = 5, 24
"""Grey levels by which a pixel differs from the border. A frame is known by its long edges, so little contrast is
enough; for scattered content more is needed than the ringing of a JPEG."""

MIN_EDGE_SHARE = 0.5
"""Share of the pixels along the inner edge of a frame that differ from the frame."""

MAX_SPECKS = 0.005
"""Share of the pixels of a frame that may differ from it."""


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """The fields are those of `ImageProperties`."""

    phash: str
    pdq: str
    pdq_quality: int
    trimmed_pdq: str | None


def compute_image_hashes(reduced: Image.Image) -> ImageHashes:
    """Return the hashes of an image that was reduced to a short side of 64 pixels or little more."""
    import imagehash  # brings scipy: only where images are decoded

    phash = str(imagehash.phash(reduced))
    grey = reduced if reduced.mode == "L" else reduced.convert("L")
    pdq, quality = _compute_pdq(grey)
    trimmed = trim_border(grey)
    return ImageHashes(phash, pdq, quality, None if trimmed is None else _compute_pdq(trimmed)[0])


def trim_border(grey: Image.Image) -> Image.Image | None:
    """Return a grey image without its frame or, where it has none, without its margins; None if nothing is trimmed."""
    pixels = np.asarray(grey, dtype=np.int16)
    box = _find_frame(pixels) or _find_margins(pixels)
    return None if box is None else grey.crop(box)


def list_trimmed_views(grey: Image.Image) -> list[Image.Image]:
    """Return the image, the image without its frame, and that without its margins, as far as they differ."""
    views = [grey]
    for find_box in (_find_frame, _find_margins):
        if (box := find_box(np.asarray(views[-1], dtype=np.int16))) is not None:
            views.append(views[-1].crop(box))
    return views


def _find_frame(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return the box inside a uniform frame, as (left, top, right, bottom); None without a frame."""
    distances = np.abs(pixels - _compute_border_level(pixels))
    differs = distances > FRAME_CONTRAST
    box = _compute_box(differs.mean(1) > MIN_EDGE_SHARE, differs.mean(0) > MIN_EDGE_SHARE)
    if box is None:
        return None
    left, top, right, bottom = box
    is_frame = np.ones(pixels.shape, dtype=bool)
    # One more pixel on each side is where frame and image were mixed when they were reduced.
    is_frame[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False
    if is_frame.any() and (distances[is_frame] > CONTENT_CONTRAST).mean() > MAX_SPECKS:
        return None
    return box


def _find_margins(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return the box around everything that differs from the border; None if that is the whole image, or nothing."""
    is_content = np.abs(pixels - _compute_border_level(pixels)) > CONTENT_CONTRAST
    return _compute_box(np.any(is_content, axis=1), np.any(is_content, axis=0))


def _compute_border_level(pixels: np.ndarray) -> float:
    return float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))


def _compute_box(is_row_inside: np.ndarray, is_column_inside: np.ndarray) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(is_row_inside), np.flatnonzero(is_column_inside)
    if not len(rows) or not len(columns):
        return None
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    is_whole = (left, top, right, bottom) == (0, 0, len(is_column_inside), len(is_row_inside))
    return None if is_whole or min(right - left, bottom - top) < MIN_TRIMMED_SIDE else (left, top, right, bottom)


def _compute_pdq(grey: Image.Image) -> tuple[str, int]:
    import pdqhash  # compiled: only where images are decoded

    side = np.asarray(grey.resize((PDQ_SIDE, PDQ_SIDE), Image.Resampling.BILINEAR))
    bits, quality = pdqhash.compute(np.repeat(side[:, :, np.newaxis], 3, axis=2))
    return np.packbits(bits).tobytes().hex(), int(quality)
