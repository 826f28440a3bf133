"""Whether one of two images that look the same lacks details of the other: a digit, a word, a bar.

Two drawings of one template, or two pages of one form, correlate well as a whole and differ in a few strokes. These are
looked for window by window, once the images are aligned to less than a pixel: an edge is lost if the other image has no
edge there that goes in the same direction. Re-encoding and resizing weaken edges and lose few; an overlay, such as a
watermark, adds edges and loses few of those below it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

DETAIL_SIDE, MAX_DETAIL_PIXELS = 256, 4 * 256 * 256
"""Short side of what is compared, in pixels, and its pixels at most, for long images."""

CELL_SIDE = 8
"""Side of a cell, in pixels; a window is two by two cells, about a word of small print."""

MIN_SIDE = 4 * CELL_SIDE
MARGIN = CELL_SIDE // 2
"""Pixels at the border that are left out: what is left of a frame, and where nothing is aligned."""

N_ALIGNMENT_STEPS, MAX_STEP = 2, 1.5
"""Steps of the alignment, and the pixels that one may move the image's border."""

EDGE_GAIN, EDGE_FLOOR = 1.6, 0.15
"""An edge is lost if it is stronger than in the other image by more than this factor and this share of a strong edge: a
half-transparent overlay weakens the edges below it."""

STRONG_EDGE_PERCENTILE = 99

FLAT_SHARE, TEXTURE_WEIGHT = 0.8, 0.6
"""An image with a smaller share of flat pixels is textured: re-encoding loses more of it, so a loss counts for less."""

DIFFERENT_SHARE, OVERLAY_EXTENT, OVERLAY_WEIGHT = 0.5, 0.3, 0.5
"""A window differs if this share of all its edges does. Windows that differ over a larger part of the width or height
may be an overlay, which hides some edges: a loss counts for less."""


def reduce_detail(grey: Image.Image) -> Image.Image:
    """Return a grey image reduced to what `compute_lost_edges` compares at most."""
    width, height = grey.size
    scale = min(DETAIL_SIDE / min(width, height), (MAX_DETAIL_PIXELS / (width * height)) ** 0.5)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return grey.resize(size, Image.Resampling.BILINEAR) if scale < 1 else grey


def compute_lost_edges(grey: Image.Image, other: Image.Image) -> float:
    """Return the weighted share of a window's edges that one image has and the other lacks, where most are lost.

    Of the two directions the smaller share counts, so that an overlay on one image loses none.

    Args:
        grey: Of `reduce_detail`.
        other: The same, of an image with about the same aspect ratio.
    """
    # The smaller one is not enlarged: it would lack edges.
    size = _round_size(*min(grey.size, other.size, key=min))
    pixels = _normalize(grey.resize(size, Image.Resampling.BILINEAR))
    aligned = _compute_aligned(pixels, other.resize(size, Image.Resampling.BILINEAR))
    inner = slice(MARGIN, -MARGIN)
    gradients, other_gradients = _compute_gradients(pixels[inner, inner]), _compute_gradients(aligned[inner, inner])
    edges, other_edges = np.abs(gradients).sum(0), np.abs(other_gradients).sum(0)
    floor = EDGE_FLOOR * _compute_strong_edge(np.maximum(edges, other_edges))
    window_edges, other_window_edges = _compute_window_means(edges), _compute_window_means(other_edges)
    lost = min(
        _compute_lost_share(gradients, other_gradients, window_edges, floor),
        _compute_lost_share(other_gradients, gradients, other_window_edges, floor),
    )
    differences = _compute_window_means(np.abs(gradients - other_gradients).sum(0))
    is_different = differences > DIFFERENT_SHARE * (window_edges + other_window_edges + 2 * floor)
    if _compute_extent(is_different) > OVERLAY_EXTENT:
        return OVERLAY_WEIGHT * lost
    is_textured = max(_compute_flat_share(edges), _compute_flat_share(other_edges)) <= FLAT_SHARE
    return TEXTURE_WEIGHT * lost if is_textured else lost


def _round_size(width: int, height: int) -> tuple[int, int]:
    """Return the size in whole cells."""
    return max(MIN_SIDE, CELL_SIDE * round(width / CELL_SIDE)), max(MIN_SIDE, CELL_SIDE * round(height / CELL_SIDE))


def _normalize(grey: Image.Image) -> np.ndarray:
    pixels = np.asarray(grey, dtype=np.float32)
    return (pixels - pixels.mean()) / (pixels.std() + 1e-6)


def _compute_aligned(pixels: np.ndarray, other: Image.Image) -> np.ndarray:
    """Return the other image moved and stretched along both axes to fit (Lucas and Kanade), or as it is if none fits.

    Trimmed borders and other sizes leave a difference of up to a pixel or two, which would lose every edge.
    """
    height, width = pixels.shape
    x = np.linspace(-1, 1, width, dtype=np.float32)[np.newaxis, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, np.newaxis]
    slope_y, slope_x = np.gradient(pixels)
    effects = np.stack([slope_x, slope_x * x, slope_y, slope_y * y]).reshape(4, -1)
    normal = (effects @ effects.T).astype(np.float64) + 1e-3 * width * np.eye(4)
    unmoved = moved = _normalize(other)
    movement = np.zeros(4)
    for _ in range(N_ALIGNMENT_STEPS):
        # Clipped, so that what only one image has pulls little.
        difference = np.clip(pixels - moved, -1, 1).reshape(-1)
        movement += np.clip(np.linalg.solve(normal, effects @ difference), -MAX_STEP, MAX_STEP)
        shift_x, stretch_x, shift_y, stretch_y = movement
        transform = (
            *(1 + 2 * stretch_x / (width - 1), 0, shift_x - stretch_x),
            *(0, 1 + 2 * stretch_y / (height - 1), shift_y - stretch_y),
        )
        moved = _normalize(other.transform(other.size, Image.Transform.AFFINE, transform, Image.Resampling.BILINEAR))
    inner = slice(MARGIN, -MARGIN)
    errors = [np.abs(pixels - result)[inner, inner].mean() for result in (moved, unmoved)]
    return moved if errors[0] <= errors[1] else unmoved


def _compute_gradients(pixels: np.ndarray) -> np.ndarray:
    """Return the steps to the next pixel along x and along y, of shape (2, height, width)."""
    return np.stack([np.diff(pixels, axis=1, append=pixels[:, -1:]), np.diff(pixels, axis=0, append=pixels[-1:])])


def _compute_strong_edge(edges: np.ndarray) -> float:
    """Return half of the strength that few edges exceed, whatever the contrast of the image."""
    return float(np.percentile(edges, STRONG_EDGE_PERCENTILE)) / 2 + 1e-6


def _compute_flat_share(edges: np.ndarray) -> float:
    return float((edges < EDGE_FLOOR * _compute_strong_edge(edges)).mean())


def _compute_lost_share(
    gradients: np.ndarray, other_gradients: np.ndarray, window_edges: np.ndarray, floor: float
) -> float:
    same_direction = np.maximum(0, np.sign(gradients) * other_gradients)
    lost = np.maximum(0, np.abs(gradients) - EDGE_GAIN * same_direction - floor).sum(0)
    return float((_compute_window_means(lost) / (window_edges + floor)).max())


def _compute_window_means(values: np.ndarray) -> np.ndarray:
    """Return the means of all windows of two by two cells."""
    n_rows, n_columns = values.shape[0] // CELL_SIDE, values.shape[1] // CELL_SIDE
    cells = values.reshape(n_rows, CELL_SIDE, n_columns, CELL_SIDE).mean(axis=(1, 3))
    return (cells[1:, 1:] + cells[1:, :-1] + cells[:-1, 1:] + cells[:-1, :-1]) / 4


def _compute_extent(is_different: np.ndarray) -> float:
    """Return the part of the height or width, whichever is larger, over which windows differ."""
    parts = [
        (positions[-1] - positions[0] + 1) / is_different.shape[axis]
        for axis in (0, 1)
        if len(positions := np.flatnonzero(is_different.any(axis=1 - axis)))
    ]
    return float(max(parts, default=0.0))
