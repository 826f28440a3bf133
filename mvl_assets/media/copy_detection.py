"""Whether two images are copies of each other, told by their pixels.

Both are compared in grey at small sizes, whole, without a frame and without margins, whichever pair fits best. Hashes
only say which images to compare: of drawings on one template and of neighbouring frames they are close, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mvl_assets.media.image import load_small_grey
from mvl_assets.media.image_hashes import list_trimmed_views

MIN_VIEW_SIDE = 256
"""Short side, in pixels, to which an image is decoded: margins are trimmed to less than half a percent."""

SIDE, EDGE_SIDE, N_BLOCKS = 64, 96, 8
"""Sides of what is compared, in pixels (edges need more detail), and blocks along a side."""

MAX_ASPECT_DIFFERENCE = 0.06
"""Largest difference of the logarithms of two aspect ratios. Views with a larger one are not compared."""

EDGE_GAIN, EDGE_FLOOR = 2.5, 0.05
"""An edge counts as lost if it is weaker than in the other image by more than this factor and this much (in standard
deviations of the grey values): a half-transparent overlay halves the edges below it."""


@dataclass(frozen=True, slots=True)
class SmallView:
    """One view of an image, in grey values without mean and scale."""

    log_aspect: float
    pixels: np.ndarray
    edges: np.ndarray


@dataclass(frozen=True, slots=True)
class ImageScores:
    """How alike two images are.

    Attributes:
        correlation: Of the grey values, from -1 to 1.
        block_difference: Mean difference of grey values in the block in which they differ most, in standard deviations.
        lost_edges: Share of a block's edges that one image has and the other lacks, where most are lost; of the two
            directions the smaller one, so that an overlay, which only adds edges, loses none.
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
    lost_edges = min(_compute_lost_edges(view.edges, other.edges), _compute_lost_edges(other.edges, view.edges))
    return ImageScores(correlation, block_difference, lost_edges)


def _build_view(grey: Image.Image) -> SmallView:
    detailed = _normalize_pixels(grey, EDGE_SIDE)
    edges = np.abs(np.diff(detailed, axis=1, append=detailed[:, -1:])) + np.abs(
        np.diff(detailed, axis=0, append=detailed[-1:])
    )
    return SmallView(float(np.log(grey.width / grey.height)), _normalize_pixels(grey, SIDE), edges)


def _normalize_pixels(grey: Image.Image, side: int) -> np.ndarray:
    pixels = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
    return (pixels - pixels.mean()) / (pixels.std() + 1e-6)


def _compute_lost_edges(edges: np.ndarray, other_edges: np.ndarray) -> float:
    lost = np.maximum(0.0, edges - EDGE_GAIN * other_edges - EDGE_FLOOR)
    return float(_compute_block_means(lost).max() / (edges.mean() + 1e-6))


def _compute_block_means(values: np.ndarray) -> np.ndarray:
    side = len(values) // N_BLOCKS
    return values.reshape(N_BLOCKS, side, N_BLOCKS, side).mean(axis=(1, 3))
