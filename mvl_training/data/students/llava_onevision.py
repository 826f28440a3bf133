"""Inputs of LLaVA-OneVision: "anyres" tiles of a single image, padded tiles of several, pooled frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from mvl_assets.media import tiles
from mvl_assets.media.tiles import TileGrid, TileLayout
from mvl_training.data.chat_format import LLAVA_STYLE, ChatTokenizer, VisualPlaceholder
from mvl_training.data.students.inputs import VisualLayout
from mvl_training.recipe import VideoNewlines

BLANK_PIXEL = 127


class LlavaOnevisionInputs:
    """See `StudentInputs`.

    Args:
        tokenizer: The student's.
        grid: How images are tiled.
        image_mode: As in `StageConfig`.
        video_newlines: As in `Recipe`.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        grid: TileGrid,
        *,
        image_mode: Literal["flat", "anyres"],
        video_newlines: VideoNewlines,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_style = LLAVA_STYLE
        self.grid = grid
        self.image_mode = image_mode
        self.video_newlines: VideoNewlines = video_newlines

    @property
    def blank_tiles(self) -> np.ndarray:
        """uint8 (1, 3, P, P)."""
        return build_blank_tiles(self.grid.tile_size)

    def compute_layouts(
        self, sizes: Sequence[tuple[int, int]], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[TileLayout, ...]:
        """Return layouts for images of these standardised (width, height); one layout for all frames of a video."""
        if is_video:
            return (tiles.compute_video_layout(len(sizes), self.grid, self.video_newlines),)
        if self.image_mode == "flat":
            return (tiles.compute_flat_layout(self.grid),) * len(sizes)
        if len(sizes) == 1:
            width, height = sizes[0]
            return (tiles.compute_anyres_layout(height, width, self.grid),)
        return (tiles.compute_padded_layout(self.grid),) * len(sizes)

    def cut_tiles(
        self, images: Sequence[Image.Image], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[np.ndarray, tuple[TileLayout, ...]]:
        """Return the tiles, uint8 (T, 3, P, P), and the layouts of standardised images."""
        layouts = self.compute_layouts([image.size for image in images], is_video=is_video)
        if is_video or self.image_mode == "flat":
            image_tiles = [tiles.cut_flat(image, self.grid) for image in images]
        elif len(images) == 1:
            image_tiles = [tiles.cut_anyres(images[0], self.grid)]
        else:
            image_tiles = [tiles.cut_padded(image, self.grid) for image in images]
        tile_size = self.grid.tile_size
        stacked = np.concatenate(image_tiles) if image_tiles else np.zeros((0, 3, tile_size, tile_size), dtype=np.uint8)
        return stacked, layouts

    def build_placeholder(self, layout: VisualLayout) -> VisualPlaceholder:
        """Return the placeholder tokens of an image or video."""
        return VisualPlaceholder("video" if layout.is_video else "image", layout.n_tokens)

    def compute_rope_ids(self, input_ids: np.ndarray, layouts: Sequence[VisualLayout]) -> None:
        """Return None: positions are counted."""


def build_blank_tiles(tile_size: int) -> np.ndarray:
    """Return one grey tile, uint8 (1, 3, P, P)."""
    return np.full((1, 3, tile_size, tile_size), BLANK_PIXEL, dtype=np.uint8)
