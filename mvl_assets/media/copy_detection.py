"""Whether two images are copies of each other, told by their pixels.

Both are compared in grey at small sizes, whole, without a frame and without margins, whichever pair fits best; of those
that fit, the details are compared, too (`lost_edges`). Hashes only say which images to compare: of drawings on one
template and of neighbouring frames they are close, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mvl_assets.media.image import load_small_grey
from mvl_assets.media.image_hashes import list_trimmed_views
from mvl_assets.media.lost_edges import compute_lost_edges, reduce_detail

MIN_VIEW_SIDE = 256
"""Short side, in pixels, to which an image is decoded: margins are trimmed to less than half a percent."""

SIDE, N_BLOCKS = 64, 8
"""Side of what is compared, in pixels, and blocks along it."""

MIN_CORRELATION = 0.8
"""Images that correlate less are no copies by any sensible rule: their details are not compared."""

VIEW_TOLERANCE = 0.005
"""Two views that correlate less than the best two by no more than this fit as well: details are compared in both."""

MAX_ASPECT_DIFFERENCE = 0.06
"""Largest difference of the logarithms of two aspect ratios. Views with a larger one are not compared."""


@dataclass(frozen=True, slots=True)
class SmallView:
    """One view of an image: small, in grey values without mean and scale, and less reduced."""

    log_aspect: float
    pixels: np.ndarray
    detail: Image.Image


@dataclass(frozen=True, slots=True)
class ImageScores:
    """How alike two images are.

    Attributes:
        correlation: Of the grey values, from -1 to 1.
        block_difference: Mean difference of grey values in the block in which they differ most, in standard deviations.
        lost_edges: Weighted share of a small window's edges that one image has and the other lacks, where most are lost
            (see `media.lost_edges`); 1 where the correlation is below `MIN_CORRELATION`.
    """

    correlation: float
    block_difference: float
    lost_edges: float


def build_views(data: bytes) -> list[SmallView]:
    """Decode an image into the views that are compared. Raises `ImageError`."""
    return [_build_view(view) for view in list_trimmed_views(load_small_grey(data, MIN_VIEW_SIDE))]


def compare_images(views: list[SmallView], other_views: list[SmallView]) -> ImageScores | None:
    """Return the scores of the two views that correlate best; None if no two have the same aspect ratio."""
    pairs = [
        (float((view.pixels * other.pixels).mean()), view, other)
        for view in views
        for other in other_views
        if abs(view.log_aspect - other.log_aspect) <= MAX_ASPECT_DIFFERENCE
    ]
    if not pairs:
        return None
    correlation, view, other = max(pairs, key=lambda pair: pair[0])
    block_difference = float(_compute_block_means(np.abs(view.pixels - other.pixels)).max())
    if correlation < MIN_CORRELATION:
        return ImageScores(correlation, block_difference, 1.0)
    fitting = [pair for pair in pairs if pair[0] >= correlation - VIEW_TOLERANCE]
    lost_edges = min(compute_lost_edges(view.detail, other.detail) for _, view, other in fitting)
    return ImageScores(correlation, block_difference, lost_edges)


def _build_view(grey: Image.Image) -> SmallView:
    return SmallView(float(np.log(grey.width / grey.height)), _normalize_pixels(grey), reduce_detail(grey))


def _normalize_pixels(grey: Image.Image) -> np.ndarray:
    pixels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32)
    return (pixels - pixels.mean()) / (pixels.std() + 1e-6)


def _compute_block_means(values: np.ndarray) -> np.ndarray:
    side = len(values) // N_BLOCKS
    return values.reshape(N_BLOCKS, side, N_BLOCKS, side).mean(axis=(1, 3))
