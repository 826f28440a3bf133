"""Tiles: how an image is cut for the vision tower, and how many tokens it takes in the language model.

The geometry is that of LLaVA-OneVision's "anyres" tiling (arXiv 2408.03326 §3.1, "Higher AnyRes"), of padded images
(several in one sample) and of video frames. Everything is a pure function of the standardised image's size and a
`TileGrid`, so tokens can be counted without touching a pixel.

Sizes are (height, width) in pixels; a "row" of features is one line of vision patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

SHRINK_THRESHOLD = 1.1
"""A tiled image's features are shrunk if their area exceeds `max_tiles` tiles by more than this factor squared."""

PADDING_LEVEL = 127
"""Grey around a padded image: SigLIP's mean (0.5) times 255, cut to an integer."""

LayoutKind = Literal["anyres", "padded", "flat", "video", "video_grid"]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Grid of tiles that images are cut into.

    Attributes:
        tile_size: Input side of the vision tower, in pixels.
        patch_size: Patch side of the vision tower, in pixels.
        shapes: Allowed (rows, columns) of tiles, in order of preference between equals.
        max_tiles: The N of "anyres_max_N".
    """

    tile_size: int
    patch_size: int
    shapes: tuple[tuple[int, int], ...]
    max_tiles: int

    @property
    def patches_per_side(self) -> int:
        """Vision patches along one side of a tile (27 for SigLIP so400m at 384 px)."""
        return self.tile_size // self.patch_size

    @property
    def grid_pinpoints(self) -> list[list[int]]:
        """The shapes in pixels, [height, width], as transformers' `image_grid_pinpoints`."""
        return [[rows * self.tile_size, columns * self.tile_size] for rows, columns in self.shapes]


@dataclass(frozen=True, slots=True)
class TileLayout:
    """Layout of the tokens that the tiles of one image (or one video) become.

    The first tile of `anyres` is the whole image, the others form a grid, and every row of features ends with a newline
    token. So does every row of every frame of `video_grid`. `padded` and `video` end with one newline token, `flat` has
    none.

    Attributes:
        kind: The form of the layout.
        n_tiles: Tiles that the vision tower encodes.
        n_tokens: Tokens that the language model reads.
        n_rows: Rows of the grid.
        n_columns: Columns of the grid.
        crop_top: Lines of features cut at the top and at the bottom, which show padding.
        crop_left: Lines of features cut at the left and at the right.
        height: Features from top to bottom after the crop.
        width: Features from left to right after the crop.
        shrunk_size: (height, width) to which the features are shrunk; None if they keep their size.
    """

    kind: LayoutKind
    n_tiles: int
    n_tokens: int
    n_rows: int = 0
    n_columns: int = 0
    crop_top: int = 0
    crop_left: int = 0
    height: int = 0
    width: int = 0
    shrunk_size: tuple[int, int] | None = None

    @property
    def is_video(self) -> bool:
        """Whether the tiles are frames of a video."""
        return self.kind in ("video", "video_grid")


def select_best_shape(height: int, width: int, grid: TileGrid) -> tuple[int, int]:
    """Return the (rows, columns) that keeps most of the image's pixels and, among those, wastes least."""
    best, most_kept, least_wasted = grid.shapes[0], 0, math.inf
    for rows, columns in grid.shapes:
        target_height, target_width = rows * grid.tile_size, columns * grid.tile_size
        scale = min(target_width / width, target_height / height)
        kept_pixels = min(int(width * scale) * int(height * scale), width * height)
        wasted_pixels = target_height * target_width - kept_pixels
        if kept_pixels > most_kept or (kept_pixels == most_kept and wasted_pixels < least_wasted):
            best, most_kept, least_wasted = (rows, columns), kept_pixels, wasted_pixels
    return best


def compute_anyres_layout(height: int, width: int, grid: TileGrid) -> TileLayout:
    """Return the layout of a sample's only image: a base view plus tiles, padding removed, shrunk above the limit."""
    rows, columns = select_best_shape(height, width, grid)
    full_height, full_width = rows * grid.patches_per_side, columns * grid.patches_per_side
    crop_top = crop_left = 0
    # Rounded to 7 digits as transformers does: without it 27 * (1 / 27) style errors shift a row of tokens.
    if width / height > full_width / full_height:
        crop_top = (full_height - int(round(height * (full_width / width), 7))) // 2
    else:
        crop_left = (full_width - int(round(width * (full_height / height), 7))) // 2
    kept_height, kept_width = full_height - 2 * crop_top, full_width - 2 * crop_left
    ratio = math.sqrt(kept_height * kept_width / (grid.max_tiles * grid.patches_per_side**2))
    shrunk_size = (int(kept_height // ratio), int(kept_width // ratio)) if ratio > SHRINK_THRESHOLD else None
    final_height, final_width = shrunk_size or (kept_height, kept_width)
    return TileLayout(
        "anyres",
        n_tiles=rows * columns + 1,
        n_tokens=grid.patches_per_side**2 + final_height * (final_width + 1),
        n_rows=rows,
        n_columns=columns,
        crop_top=crop_top,
        crop_left=crop_left,
        height=kept_height,
        width=kept_width,
        shrunk_size=shrunk_size,
    )


def compute_padded_layout(grid: TileGrid) -> TileLayout:
    """Return the layout of one of several images in a sample: one tile and a newline."""
    return TileLayout("padded", n_tiles=1, n_tokens=grid.patches_per_side**2 + 1)


def compute_flat_layout(grid: TileGrid) -> TileLayout:
    """Return the layout of the alignment stage: one tile, no newline."""
    return TileLayout("flat", n_tiles=1, n_tokens=grid.patches_per_side**2)


def compute_pooled_side(grid: TileGrid) -> int:
    """Return the features along one side of a video frame after pooling by two (14 for 27)."""
    return math.ceil(grid.patches_per_side / 2)


def compute_video_layout(n_frames: int, grid: TileGrid, newlines: Literal["one", "grid"] = "one") -> TileLayout:
    """Return the layout of a video: pooled frames, and one newline at the very end or one after each row."""
    side = compute_pooled_side(grid)
    if newlines == "grid":
        return TileLayout("video_grid", n_tiles=n_frames, n_tokens=n_frames * side * (side + 1))
    return TileLayout("video", n_tiles=n_frames, n_tokens=n_frames * side**2 + 1)


def cut_anyres(image: Image.Image, grid: TileGrid) -> np.ndarray:
    """Return the tiles of an RGB image, uint8 of shape (tiles, 3, tile, tile): the whole image, then row by row."""
    width, height = image.size
    rows, columns = select_best_shape(height, width, grid)
    target_height, target_width = rows * grid.tile_size, columns * grid.tile_size
    scale_w, scale_h = target_width / width, target_height / height
    if scale_w < scale_h:
        resized_size = (target_width, min(math.ceil(height * scale_w), target_height))
    else:
        resized_size = (min(math.ceil(width * scale_h), target_width), target_height)
    canvas = Image.new("RGB", (target_width, target_height))
    canvas.paste(
        _resize(image, resized_size), ((target_width - resized_size[0]) // 2, (target_height - resized_size[1]) // 2)
    )
    base_tile = _to_chw_array(_resize(image, (grid.tile_size, grid.tile_size)))
    blocks = _to_chw_array(canvas).reshape(3, rows, grid.tile_size, columns, grid.tile_size)
    tiles = blocks.transpose(1, 3, 0, 2, 4).reshape(rows * columns, 3, grid.tile_size, grid.tile_size)
    return np.concatenate([base_tile[None], tiles])


def cut_padded(image: Image.Image, grid: TileGrid) -> np.ndarray:
    """Return one tile (1, 3, tile, tile), uint8: the image padded to a square with grey, then resized."""
    side = max(image.size)
    if image.size != (side, side):
        square = Image.new("RGB", (side, side), (PADDING_LEVEL,) * 3)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    return cut_flat(image, grid)


def cut_flat(image: Image.Image, grid: TileGrid) -> np.ndarray:
    """Return one tile (1, 3, tile, tile), uint8: the image squeezed to the tile (alignment stage, video frames)."""
    return _to_chw_array(_resize(image, (grid.tile_size, grid.tile_size)))[None]


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _to_chw_array(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
