"""Tiles: how a picture is cut for the vision tower, and how many tokens it takes in the language model.

Belongs here: the geometry of LLaVA-OneVision's "anyres" tiling (arXiv 2408.03326 §3.1, "Higher AnyRes"), of padded
pictures (several in one sample) and of video frames, and the cutting itself. Everything is a pure function of the
standardised picture's size and a `TileGrid`, so a token can be counted without touching a pixel. Does not belong here:
decoding and standardising (`picture`), normalising and the towers (`mvl_training`).

Sizes are (height, width) in pixels; a "row" of features is one line of vision patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

SHRINK_ABOVE = 1.1
"""A tiled picture's features shrink when their area exceeds `max_tiles` tiles by more than this factor squared."""

PADDING_LEVEL = 127
"""Grey around a padded picture: SigLIP's mean (0.5) times 255, cut to an integer."""

Kind = Literal["anyres", "padded", "flat", "video"]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """What pictures are cut into.

    `tile` and `patch` are the vision tower's input side and patch side in pixels; `shapes` the allowed (rows, columns)
    of tiles, in order of preference between equals; `max_tiles` is the N of "anyres_max_N".
    """

    tile: int
    patch: int
    shapes: tuple[tuple[int, int], ...]
    max_tiles: int

    @property
    def side(self) -> int:
        """Vision patches along one side of a tile (27 for SigLIP so400m at 384 px)."""
        return self.tile // self.patch

    @property
    def pinpoints(self) -> list[list[int]]:
        """The shapes in pixels, [height, width], as transformers' `image_grid_pinpoints`."""
        return [[rows * self.tile, columns * self.tile] for rows, columns in self.shapes]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tiles of one picture (or one video) become tokens.

    `tiles` counts what the vision tower sees; `tokens` what the language model sees. For `anyres` the first tile is
    the whole picture, the others form `rows` x `columns`; `top`/`left` feature lines are cut from both sides of the
    padding, leaving `height` x `width` features, which are shrunk to `shrunk` when that is set; every feature row ends
    with a newline token. `padded` and `video` end with one newline token, `flat` has none.
    """

    kind: Kind
    tiles: int
    tokens: int
    rows: int = 0
    columns: int = 0
    top: int = 0
    left: int = 0
    height: int = 0
    width: int = 0
    shrunk: tuple[int, int] | None = None


def best_shape(height: int, width: int, grid: TileGrid) -> tuple[int, int]:
    """The (rows, columns) that keeps most of the picture's pixels and, among those, wastes least."""
    best, most_kept, least_wasted = grid.shapes[0], 0, math.inf
    for rows, columns in grid.shapes:
        target_height, target_width = rows * grid.tile, columns * grid.tile
        scale = min(target_width / width, target_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = target_height * target_width - kept
        if kept > most_kept or (kept == most_kept and wasted < least_wasted):
            best, most_kept, least_wasted = (rows, columns), kept, wasted
    return best


def anyres_layout(height: int, width: int, grid: TileGrid) -> Layout:
    """The layout of a sample's only picture: a base view plus tiles, padding removed, shrunk above the limit."""
    rows, columns = best_shape(height, width, grid)
    full_height, full_width = rows * grid.side, columns * grid.side
    top = left = 0
    # Rounded to 7 digits as transformers does: without it 27 * (1 / 27) style errors shift a row of tokens.
    if width / height > full_width / full_height:
        top = (full_height - int(round(height * (full_width / width), 7))) // 2
    else:
        left = (full_width - int(round(width * (full_height / height), 7))) // 2
    kept_height, kept_width = full_height - 2 * top, full_width - 2 * left
    ratio = math.sqrt(kept_height * kept_width / (grid.max_tiles * grid.side**2))
    shrunk = (int(kept_height // ratio), int(kept_width // ratio)) if ratio > SHRINK_ABOVE else None
    lines, line = shrunk or (kept_height, kept_width)
    return Layout(
        "anyres",
        tiles=rows * columns + 1,
        tokens=grid.side**2 + lines * (line + 1),
        rows=rows,
        columns=columns,
        top=top,
        left=left,
        height=kept_height,
        width=kept_width,
        shrunk=shrunk,
    )


def padded_layout(grid: TileGrid) -> Layout:
    """The layout of one of several pictures in a sample: one tile and a newline."""
    return Layout("padded", tiles=1, tokens=grid.side**2 + 1)


def flat_layout(grid: TileGrid) -> Layout:
    """The layout of the alignment stage: one tile, no newline."""
    return Layout("flat", tiles=1, tokens=grid.side**2)


def pooled_side(grid: TileGrid) -> int:
    """Features along one side of a video frame after pooling by two (14 for 27)."""
    return math.ceil(grid.side / 2)


def video_layout(frames: int, grid: TileGrid) -> Layout:
    """The layout of a video: pooled frames and one newline at the very end."""
    return Layout("video", tiles=frames, tokens=frames * pooled_side(grid) ** 2 + 1)


def pick_frames(available: int, limit: int) -> list[int]:
    """Indices of at most `limit` of `available` frames, evenly spread, first and last included."""
    if available <= limit:
        return list(range(available))
    return [int(i) for i in np.linspace(0, available - 1, limit, dtype=np.int64)]


def cut_anyres(picture: Image.Image, grid: TileGrid) -> np.ndarray:
    """Tiles of an RGB picture, uint8 of shape (tiles, 3, tile, tile): the whole picture first, then row by row."""
    width, height = picture.size
    rows, columns = best_shape(height, width, grid)
    target_height, target_width = rows * grid.tile, columns * grid.tile
    scale_w, scale_h = target_width / width, target_height / height
    if scale_w < scale_h:
        inner = (target_width, min(math.ceil(height * scale_w), target_height))
    else:
        inner = (min(math.ceil(width * scale_h), target_width), target_height)
    canvas = Image.new("RGB", (target_width, target_height))
    canvas.paste(_resized(picture, inner), ((target_width - inner[0]) // 2, (target_height - inner[1]) // 2))
    whole = _array(_resized(picture, (grid.tile, grid.tile)))
    parts = _array(canvas).reshape(3, rows, grid.tile, columns, grid.tile)
    tiles = parts.transpose(1, 3, 0, 2, 4).reshape(rows * columns, 3, grid.tile, grid.tile)
    return np.concatenate([whole[None], tiles])


def cut_padded(picture: Image.Image, grid: TileGrid) -> np.ndarray:
    """One tile (1, 3, tile, tile), uint8: the picture padded to a square with grey, then resized."""
    side = max(picture.size)
    if picture.size != (side, side):
        square = Image.new("RGB", (side, side), (PADDING_LEVEL,) * 3)
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = square
    return cut_flat(picture, grid)


def cut_flat(picture: Image.Image, grid: TileGrid) -> np.ndarray:
    """One tile (1, 3, tile, tile), uint8: the picture squeezed to the tile (alignment stage, video frames)."""
    return _array(_resized(picture, (grid.tile, grid.tile)))[None]


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


def _array(picture: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))
