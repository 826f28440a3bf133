"""Inputs of InternVL in transformers' form: images cut into tiles by their aspect ratio, and a tile of the whole.

The numbers are those of transformers' `GotOcr2ImageProcessor` and `InternVLVideoProcessor`: the grid of tiles has the
aspect ratio closest to the image's; where it has more than one tile, a tile of the whole image follows. Each frame of a
video is one tile, written as "Frame1: …" in a line of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mvl_assets.errors import MvlError
from mvl_training.data.chat_format import ChatStyle, ChatTokenizer, VisualPlaceholder
from mvl_training.data.students.inputs import VisualLayout
from mvl_training.data.students.llava_onevision import build_blank_tiles
from mvl_training.data.students.processor_files import (
    check_usual_settings,
    read_model_config,
    read_processor_settings,
)
from mvl_training.recipe_student import StudentConfig

VISUAL_TOKENS = ("<IMG_CONTEXT>", "<IMG_CONTEXT>")
"""Frames of a video have the placeholder tokens of images."""

IMAGE_START, IMAGE_END = "<img>", "</img>"


@dataclass(frozen=True, slots=True)
class TileSettings:
    """How a student cuts images.

    Attributes:
        tile_size: Side of a tile in pixels.
        tokens_per_tile: Tokens that a tile becomes.
        min_tiles: Least tiles of an image, without the one of the whole.
        max_tiles: Most tiles of an image, without the one of the whole.
    """

    tile_size: int
    tokens_per_tile: int
    min_tiles: int
    max_tiles: int


@dataclass(frozen=True, slots=True)
class TileCut:
    """Layout of one image or video.

    Attributes:
        n_tiles: Tiles; of a video its frames.
        n_tokens: Placeholder tokens.
        is_video: Whether it is a video.
        n_columns: Columns of tiles.
        n_rows: Rows of tiles.
    """

    n_tiles: int
    n_tokens: int
    is_video: bool = False
    n_columns: int = 1
    n_rows: int = 1


class InternVLInputs:
    """See `StudentInputs`."""

    def __init__(self, tokenizer: ChatTokenizer, settings: TileSettings) -> None:
        self.tokenizer = tokenizer
        self.chat_style = ChatStyle(newline_after_visual=True, has_empty_system=False)
        self.settings = settings
        self._start_id, self._end_id = map(tokenizer.get_token_id, (IMAGE_START, IMAGE_END))

    @property
    def blank_tiles(self) -> np.ndarray:
        """uint8 (1, 3, P, P)."""
        return build_blank_tiles(self.settings.tile_size)

    def compute_layouts(
        self, sizes: Sequence[tuple[int, int]], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[TileCut, ...]:
        """Return a layout for each image, or the one of a video."""
        n_tokens = self.settings.tokens_per_tile
        if is_video:
            return (TileCut(len(sizes), len(sizes) * n_tokens, is_video=True),)
        cuts = []
        for width, height in sizes:
            n_columns, n_rows = select_grid(width, height, self.settings)
            n_tiles = n_columns * n_rows
            n_tiles += n_tiles > 1
            cuts.append(TileCut(n_tiles, n_tiles * n_tokens, n_columns=n_columns, n_rows=n_rows))
        return tuple(cuts)

    def cut_tiles(
        self, images: Sequence[Image.Image], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[np.ndarray, tuple[TileCut, ...]]:
        """Return the tiles, uint8 (T, 3, P, P), and the layouts."""
        layouts = self.compute_layouts([image.size for image in images], is_video=is_video)
        cuts = [TileCut(1, 0)] * len(images) if is_video else layouts
        cut = [self._cut_image(image, layout) for image, layout in zip(images, cuts, strict=True)]
        return np.concatenate([self.blank_tiles[:0], *cut]), layouts

    def _cut_image(self, image: Image.Image, layout: TileCut) -> np.ndarray:
        """Return the tiles of an image row by row, and after several the whole."""
        side, n_rows, n_columns = self.settings.tile_size, layout.n_rows, layout.n_columns
        resized = _resize(image, n_columns * side, n_rows * side)
        blocks = resized.reshape(n_rows, side, n_columns, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
        if layout.n_tiles == 1:
            return blocks
        return np.concatenate([blocks, _resize(image, side, side).transpose(2, 0, 1)[None]])

    def build_placeholder(self, layout: VisualLayout) -> VisualPlaceholder:
        """Return the placeholder tokens between their marks; of a video, those of each frame after its number."""
        token_id, n_tile_tokens = self.tokenizer.image_token_id, self.settings.tokens_per_tile
        if not layout.is_video:
            ids = (self._start_id, *[token_id] * layout.n_tokens, self._end_id)
            return VisualPlaceholder("image", layout.n_tokens, (ids,))
        ids = (self._start_id, *[token_id] * n_tile_tokens, self._end_id)
        parts: list[str | tuple[int, ...]] = []
        for number in range(1, layout.n_tiles + 1):
            parts += ["\n" * (number > 1) + f"Frame{number}: ", ids]
        return VisualPlaceholder("video", layout.n_tokens, tuple(parts))

    def compute_rope_ids(self, input_ids: np.ndarray, layouts: Sequence[VisualLayout]) -> None:
        """Return None: positions are counted."""


def select_grid(width: int, height: int, settings: TileSettings) -> tuple[int, int]:
    """Return the (columns, rows) of tiles whose aspect ratio is closest to the image's.

    Of equals the one with more tiles is chosen, as long as they show at most twice as many pixels as the image has.
    """
    limit = settings.max_tiles
    grids = [
        (n_columns, n_rows)
        for n_columns in range(1, limit + 1)
        for n_rows in range(1, limit + 1)
        if settings.min_tiles <= n_columns * n_rows <= limit
    ]
    best, least_difference = (1, 1), float("inf")
    for n_columns, n_rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - n_columns / n_rows)
        is_filled = width * height > 0.5 * settings.tile_size**2 * n_columns * n_rows
        if difference < least_difference or (difference == least_difference and is_filled):
            best, least_difference = (n_columns, n_rows), difference
    return best


def open_internvl(tokenizer: ChatTokenizer, model_dir: Path, student: StudentConfig) -> InternVLInputs:
    """Return the inputs of InternVL by the files of a model.

    Raises:
        MvlError: Its processor does not fit its vision tower, or gives other pixels than `cut_tiles`.
    """
    _, images, videos = read_processor_settings(model_dir)
    check_usual_settings(model_dir, images, videos)
    vision_config = read_model_config(model_dir).get("vision_config") or {}
    sides = {(settings.get("size") or {}).get(side) for settings in (images, videos) for side in ("height", "width")}
    image_size = vision_config.get("image_size", 448)
    sides |= set(image_size) if isinstance(image_size, list) else {image_size}
    tile_size = next(iter(sides))
    if len(sides) != 1 or not isinstance(tile_size, int):
        raise MvlError(
            f"{model_dir}: its processor and config name no single side of tiles ({', '.join(map(str, sides))})",
            hint="use the processor files that the model was published with",
        )
    max_tiles = student.max_tiles or int(images.get("max_patches", 12))
    settings = TileSettings(
        tile_size=tile_size,
        tokens_per_tile=read_tokens_per_tile(model_dir),
        min_tiles=min(int(images.get("min_patches", 1)), max_tiles),
        max_tiles=max_tiles,
    )
    return InternVLInputs(tokenizer, settings)


def read_tokens_per_tile(model_dir: Path) -> int:
    """Return how many tokens a tile becomes by the files of a model."""
    processor, _, _ = read_processor_settings(model_dir)
    config: Mapping[str, Any] = read_model_config(model_dir)
    return int(processor.get("image_seq_length") or config.get("image_seq_length") or 256)


def _resize(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Return an image's pixels at a size, uint8 (height, width, 3)."""
    resized = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)
