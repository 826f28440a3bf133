"""Inputs of Qwen2.5-VL and Qwen3-VL: images at their own resolution, as patches of which four become a token.

An image is resized so that its sides are multiples of two patches; two frames of a video are one step in time. A tile
is what one token sees: two by two patches, of one image or of two frames. The numbers are those of transformers'
`Qwen2VLImageProcessor`, `Qwen2VLVideoProcessor` and `Qwen3VLVideoProcessor`. Qwen3-VL writes the time of each step
between the tokens of a video; Qwen2.5-VL has it in the positions.

Positions are M-RoPE's (arXiv 2409.12191 §2.1): each token has one in time, height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import MvlError
from mvl_training.data.chat_format import ChatStyle, ChatTokenizer, VisualPlaceholder
from mvl_training.data.students.inputs import VisualLayout
from mvl_training.data.students.processor_files import (
    check_usual_settings,
    read_model_config,
    read_pixel_limits,
    read_processor_settings,
)
from mvl_training.recipe_student import StudentConfig

VISUAL_TOKENS = ("<|image_pad|>", "<|video_pad|>")
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"

MAX_ASPECT_RATIO = 200
FRAME_INTERVAL_S = 0.5
"""Between frames whose times are unknown: the rate at which the processors sample videos."""

BLANK_PIXEL = 127


class PixelLimits(NamedTuple):
    """Least and most pixels."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class PatchSettings:
    """How a student cuts images.

    Attributes:
        patch_size: Side of a patch in pixels.
        merge_size: Patches along the side of a tile.
        temporal_patch_size: Frames of one step in time.
        image_limits: Pixels of an image.
        video_limits: Pixels of a frame, or, if `is_limit_of_video`, of all frames.
        is_limit_of_video: What `video_limits` are of.
        has_timestamps: Whether times are written between the tokens of a video.
        tokens_per_second: Positions in time of one second, where times are not written.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image_limits: PixelLimits
    video_limits: PixelLimits
    is_limit_of_video: bool
    has_timestamps: bool
    tokens_per_second: float = 1.0

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Layout of one image or video.

    Attributes:
        n_steps: Steps in time; 1 of an image.
        n_rows: Rows of tiles.
        n_columns: Columns of tiles.
        step_seconds: Seconds from one step to the next; None of an image.
        timestamps: Mean time of each step's frames; none of an image.
    """

    n_steps: int
    n_rows: int
    n_columns: int
    step_seconds: float | None = None
    timestamps: tuple[float, ...] = ()

    @property
    def n_tiles(self) -> int:
        """Tiles, of which each becomes a token."""
        return self.n_steps * self.n_rows * self.n_columns

    @property
    def n_tokens(self) -> int:
        """Placeholder tokens."""
        return self.n_tiles

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.step_seconds is not None


class QwenInputs:
    """See `StudentInputs`."""

    def __init__(self, tokenizer: ChatTokenizer, settings: PatchSettings) -> None:
        self.tokenizer = tokenizer
        self.chat_style = ChatStyle(newline_after_visual=False, has_empty_system=False)
        self.settings = settings
        self._start_id, self._end_id = map(tokenizer.get_token_id, (VISION_START, VISION_END))

    @property
    def blank_tiles(self) -> np.ndarray:
        """uint8 (1, patches of a tile, values of a patch)."""
        settings = self.settings
        n_values = 3 * settings.temporal_patch_size * settings.patch_size**2
        return np.full((1, settings.merge_size**2, n_values), BLANK_PIXEL, dtype=np.uint8)

    def compute_layouts(
        self, sizes: Sequence[tuple[int, int]], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[PatchGrid, ...]:
        """Return a layout for each image, or the one of a video."""
        if is_video:
            return (self._compute_video_grid(*sizes[0], seconds or [FRAME_INTERVAL_S * i for i in range(len(sizes))]),)
        grids = []
        for width, height in sizes:
            new_width, new_height = fit_size(width, height, self.settings.tile_size, self.settings.image_limits)
            grids.append(PatchGrid(1, new_height // self.settings.tile_size, new_width // self.settings.tile_size))
        return tuple(grids)

    def _compute_video_grid(self, width: int, height: int, seconds: Sequence[float]) -> PatchGrid:
        settings, n_frames = self.settings, len(seconds)
        step = settings.temporal_patch_size
        if settings.is_limit_of_video:
            if n_frames < step:
                raise RejectError("short_video", f"{n_frames} frames, the student takes at least {step}")
            new_width, new_height = fit_size(
                width, height, settings.tile_size, settings.video_limits, n_frames, round(n_frames / step) * step
            )
        else:
            new_width, new_height = fit_size(width, height, settings.tile_size, settings.video_limits)
        # The last frame is repeated until the last step is whole.
        padded = [*seconds, *[seconds[-1]] * (-n_frames % step)]
        starts = range(0, len(padded), step)
        return PatchGrid(
            len(padded) // step,
            new_height // settings.tile_size,
            new_width // settings.tile_size,
            step_seconds=step * ((seconds[-1] - seconds[0]) / (n_frames - 1) if n_frames > 1 else FRAME_INTERVAL_S),
            timestamps=tuple((padded[start] + padded[start + step - 1]) / 2 for start in starts),
        )

    def cut_tiles(
        self, images: Sequence[Image.Image], *, is_video: bool, seconds: Sequence[float] = ()
    ) -> tuple[np.ndarray, tuple[PatchGrid, ...]]:
        """Return the tiles, uint8 (T, patches of a tile, values of a patch), and the layouts."""
        layouts = self.compute_layouts([image.size for image in images], is_video=is_video, seconds=seconds)
        frames_by_layout = [images] if is_video else [[image] for image in images]
        cut = [self._cut_grid(frames, grid) for frames, grid in zip(frames_by_layout, layouts, strict=True)]
        return np.concatenate([self.blank_tiles[:0], *cut]), layouts

    def _cut_grid(self, frames: Sequence[Image.Image], grid: PatchGrid) -> np.ndarray:
        """Return the tiles of an image or video, row by row of each step; values are ordered (RGB, frame, y, x)."""
        patch, merge, step = self.settings.patch_size, self.settings.merge_size, self.settings.temporal_patch_size
        size = (grid.n_columns * self.settings.tile_size, grid.n_rows * self.settings.tile_size)
        pixels = [
            np.asarray(frame if frame.size == size else frame.resize(size, Image.Resampling.BICUBIC), dtype=np.uint8)
            for frame in frames
        ]
        pixels += [pixels[-1]] * (grid.n_steps * step - len(pixels))
        cut = np.stack(pixels).reshape(grid.n_steps, step, grid.n_rows, merge, patch, grid.n_columns, merge, patch, 3)
        # To (steps, rows, columns; patches of a tile; RGB, frames, patch, patch).
        return cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(grid.n_tiles, merge**2, -1)

    def build_placeholder(self, layout: VisualLayout) -> VisualPlaceholder:
        """Return the placeholder tokens between their marks; of a video with times, each step after its own."""
        assert isinstance(layout, PatchGrid)
        token_id = self.tokenizer.video_token_id if layout.is_video else self.tokenizer.image_token_id
        if not layout.is_video or not self.settings.has_timestamps:
            parts: tuple[Any, ...] = ((self._start_id, *[token_id] * layout.n_tokens, self._end_id),)
        else:
            step_ids = (self._start_id, *[token_id] * (layout.n_rows * layout.n_columns), self._end_id)
            steps = [part for time in layout.timestamps for part in (f"<{time:.1f} seconds>", step_ids)]
            # The marks of the whole are the chat template's: transformers keeps them around those of the steps.
            parts = ((self._start_id,), *steps, (self._end_id,))
        return VisualPlaceholder("video" if layout.is_video else "image", layout.n_tokens, parts)

    def compute_rope_ids(self, input_ids: np.ndarray, layouts: Sequence[VisualLayout]) -> np.ndarray:
        """Return M-RoPE's positions, int64 (3, L).

        Text counts on; the tokens of an image begin at the next position and have those of their row and column; text
        goes on after the larger side.
        """
        is_visual = np.isin(input_ids, self.tokenizer.placeholder_ids)
        grids = (grid for layout in layouts for grid in self._iter_position_grids(layout))
        rope_ids_3L = np.zeros((3, len(input_ids)), dtype=np.int64)
        position = index = 0
        while index < len(input_ids):
            if is_visual[index]:
                times, n_rows, n_columns = next(grids)
                stop = index + len(times) * n_rows * n_columns
                axes = np.meshgrid(times, np.arange(n_rows), np.arange(n_columns), indexing="ij")
                rope_ids_3L[:, index:stop] = position + np.stack(axes).reshape(3, -1)
                position += max(n_rows, n_columns)
            else:
                n_text = int(np.argmax(is_visual[index:])) or len(input_ids) - index
                stop = index + n_text
                rope_ids_3L[:, index:stop] = position + np.arange(n_text)
                position += n_text
            index = stop
        return rope_ids_3L

    def _iter_position_grids(self, layout: VisualLayout) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yield (times, rows, columns) of each run of placeholder tokens; times are positions."""
        assert isinstance(layout, PatchGrid)
        if layout.step_seconds is not None and self.settings.has_timestamps:
            for _ in range(layout.n_steps):
                yield np.zeros(1, dtype=np.int64), layout.n_rows, layout.n_columns
            return
        interval = self.settings.tokens_per_second * (layout.step_seconds or 0.0)
        times = (np.arange(layout.n_steps, dtype=np.float32) * np.float32(interval)).astype(np.int64)
        yield times, layout.n_rows, layout.n_columns


def fit_size(
    width: int, height: int, factor: int, limits: PixelLimits, n_frames: int = 1, n_counted_frames: int = 1
) -> tuple[int, int]:
    """Return the (width, height) to which an image is resized: multiples of `factor`, within the limits.

    Args:
        width: In pixels.
        height: In pixels.
        factor: Side of a tile.
        limits: Least and most pixels, of all frames.
        n_frames: Frames.
        n_counted_frames: Frames whose pixels are compared with the limits: whole steps of them.

    Raises:
        RejectError: The image is too narrow.
    """
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise RejectError("too_narrow", f"{width} x {height} px, the student takes sides up to 1 : {MAX_ASPECT_RATIO}")
    if n_frames > 1 and min(width, height) < factor:
        scale = max(factor / height, factor / width)
        width, height = int(width * scale), int(height * scale)
    new_sides = [round(side / factor) * factor for side in (width, height)]
    n_pixels = n_counted_frames * math.prod(new_sides)
    if n_pixels > limits.most:
        shrink = math.sqrt(n_frames * width * height / limits.most)
        new_sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)]
    elif n_pixels < limits.least:
        growth = math.sqrt(limits.least / (n_frames * width * height))
        new_sides = [math.ceil(side * growth / factor) * factor for side in (width, height)]
    return new_sides[0], new_sides[1]


def open_qwen2_5_vl(tokenizer: ChatTokenizer, model_dir: Path, student: StudentConfig) -> QwenInputs:
    """Return the inputs of Qwen2.5-VL by the files of a model."""
    vision_config = read_model_config(model_dir).get("vision_config") or {}
    # transformers' defaults.
    images, videos = PixelLimits(56 * 56, 28 * 28 * 1280), PixelLimits(128 * 28 * 28, 28 * 28 * 768)
    settings = _read_settings(
        model_dir,
        student,
        images,
        videos,
        patch_size=14,
        is_limit_of_video=False,
        tokens_per_second=float(vision_config.get("tokens_per_second", 4)),
    )
    return QwenInputs(tokenizer, settings)


def open_qwen3_vl(tokenizer: ChatTokenizer, model_dir: Path, student: StudentConfig) -> QwenInputs:
    """Return the inputs of Qwen3-VL by the files of a model."""
    images, videos = PixelLimits(56 * 56, 28 * 28 * 1280), PixelLimits(128 * 32 * 32, 32 * 32 * 768)
    settings = _read_settings(model_dir, student, images, videos, patch_size=16, is_limit_of_video=True)
    return QwenInputs(tokenizer, settings)


def _read_settings(
    model_dir: Path,
    student: StudentConfig,
    image_limits: PixelLimits,
    video_limits: PixelLimits,
    *,
    patch_size: int,
    is_limit_of_video: bool,
    tokens_per_second: float = 1.0,
) -> PatchSettings:
    _, images, videos = read_processor_settings(model_dir)
    check_usual_settings(model_dir, images, videos)
    image_limits = PixelLimits(*(read_pixel_limits(images) or image_limits))
    video_limits = PixelLimits(*(read_pixel_limits(videos) or video_limits))
    if student.max_pixels is not None:
        if student.max_pixels < image_limits.least:
            raise MvlError(
                f"student.max_pixels {student.max_pixels} is below the {image_limits.least} pixels to which {model_dir}"
                " enlarges small images"
            )
        image_limits = image_limits._replace(most=student.max_pixels)
        if not is_limit_of_video:
            video_limits = video_limits._replace(most=max(student.max_pixels, video_limits.least))
    return PatchSettings(
        patch_size=int(images.get("patch_size", patch_size)),
        merge_size=int(images.get("merge_size", 2)),
        temporal_patch_size=int(images.get("temporal_patch_size", 2)),
        image_limits=image_limits,
        video_limits=video_limits,
        is_limit_of_video=is_limit_of_video,
        has_timestamps=is_limit_of_video,
        tokens_per_second=tokens_per_second,
    )
