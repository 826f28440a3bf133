"""Random sample shapes like LLaVA-OneVision's: 12% text only, mean 2,400 tokens, 99th percentile 4,350.

Tokens and tiles of images follow from their sizes as in training; text lengths are log-normal. Forecasts and benchmarks
take them where there is no data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.media.tiles import TileGrid, compute_anyres_layout, compute_video_layout
from mvl_training.data.pack_plan import SampleCounts
from mvl_training.data.processing import load_tokenizer
from mvl_training.data.students.inputs import VisualLayout
from mvl_training.data.students.open_inputs import open_inputs
from mvl_training.recipe import Recipe

TEXT_ONLY_FRACTION = 0.12
MIN_IMAGE_SIDE, MAX_IMAGE_SIDE = 224, 4096
N_IMAGE_SIZES = 4000
"""Distinct image sizes, shared by all samples."""

CAPTION_TOKENS = 25
"""Median length of an alignment caption."""


@dataclass(frozen=True, slots=True)
class DrawnCounts:
    """Counts of drawn samples, read as those of a plan are."""

    counts: SampleCounts

    def __len__(self) -> int:
        return len(self.counts.n_tokens)

    def read_counts(self, positions: np.ndarray) -> SampleCounts:
        """Return the counts of the samples at these positions, in their order."""
        return self.counts.take(positions)


@dataclass(frozen=True, slots=True)
class SampleShapes:
    """Lengths of N samples.

    Attributes:
        text_tokens_N: Tokens of text.
        loss_tokens_N: Text tokens that the loss is taken on.
        image_index_N: Index into `layouts`, -1 for text only.
        layouts: Tile layouts of the distinct images.
        image_sizes: Their (width, height).
    """

    text_tokens_N: np.ndarray
    loss_tokens_N: np.ndarray
    image_index_N: np.ndarray
    layouts: tuple[VisualLayout, ...]
    image_sizes: tuple[tuple[int, int], ...]

    @property
    def tokens_N(self) -> np.ndarray:
        """Tokens of each sample, those of its image included."""
        return self.text_tokens_N + np.array([layout.n_tokens for layout in self.layouts] + [0])[self.image_index_N]

    @property
    def tiles_N(self) -> np.ndarray:
        """Tiles of each sample."""
        return np.array([layout.n_tiles for layout in self.layouts] + [0])[self.image_index_N]


def draw_samples(n_samples: int, grid: TileGrid, seed: int, max_tokens: int) -> SampleShapes:
    """Return samples of LLaVA-OneVision of at most `max_tokens` tokens; equal arguments give equal samples."""
    return _draw_shapes(n_samples, lambda width, height: compute_anyres_layout(height, width, grid), seed, max_tokens)


def _draw_shapes(
    n_samples: int, compute_layout: Callable[[int, int], VisualLayout], seed: int, max_tokens: int
) -> SampleShapes:
    rng = np.random.default_rng(seed)
    image_sizes = tuple(draw_image_size(rng) for _ in range(min(N_IMAGE_SIZES, n_samples)))
    layouts = tuple(compute_layout(width, height) for width, height in image_sizes)
    is_text_only_N = rng.random(n_samples) < TEXT_ONLY_FRACTION
    text_tokens_N = np.where(
        is_text_only_N, 40 + rng.lognormal(np.log(350), 0.8, n_samples), 30 + rng.lognormal(np.log(110), 0.7, n_samples)
    )
    image_index_N = np.where(is_text_only_N, -1, rng.integers(0, len(image_sizes), n_samples))
    visual_tokens_N = np.array([layout.n_tokens for layout in layouts] + [0])[image_index_N]
    text_tokens_N = np.clip(text_tokens_N.astype(np.int64), 8, max_tokens - visual_tokens_N)
    return SampleShapes(
        text_tokens_N, np.maximum(1, (text_tokens_N * 0.7).astype(np.int64)), image_index_N, layouts, image_sizes
    )


def draw_stage_counts(
    recipe: Recipe, stage: TrainingStage, n_samples: int, seed: int, *, video_share: float = 0.0
) -> DrawnCounts:
    """Return the counts of samples that a stage might have; equal arguments give equal samples.

    Args:
        recipe: The recipe.
        stage: One of its stages.
        n_samples: Number of samples.
        seed: Seed of the drawing.
        video_share: Share of samples that are videos of as many frames as the stage takes; of LLaVA-OneVision.
    """
    if recipe.student is not None:
        return _draw_student_counts(recipe, stage, n_samples, seed)
    stage_config, grid = recipe.get_stage(stage), recipe.towers.grid.to_tile_grid()
    if stage_config.image_mode == "flat":
        rng = np.random.default_rng(seed)
        captions_N = np.clip(rng.lognormal(np.log(CAPTION_TOKENS), 0.6, n_samples), 4, 400).astype(np.int64)
        return DrawnCounts(
            SampleCounts(grid.patches_per_side**2 + captions_N, captions_N, np.ones(n_samples, dtype=np.int64))
        )
    shapes = draw_samples(n_samples, grid, seed, stage_config.max_seq_len)
    is_video_N = np.random.default_rng(seed + 1).random(n_samples) < video_share
    video = compute_video_layout(stage_config.max_frames, grid, recipe.video_newlines)
    n_tokens_N = np.where(is_video_N, video.n_tokens + shapes.text_tokens_N, shapes.tokens_N)
    n_tiles_N = np.where(is_video_N, video.n_tiles, shapes.tiles_N)
    return DrawnCounts(SampleCounts(n_tokens_N, shapes.loss_tokens_N, n_tiles_N))


def _draw_student_counts(recipe: Recipe, stage: TrainingStage, n_samples: int, seed: int) -> DrawnCounts:
    """Return counts of a whole student's samples, without videos; those that are too long are drawn again as text."""
    inputs = open_inputs(recipe, stage, load_tokenizer(recipe))
    max_tokens = recipe.get_stage(stage).max_seq_len
    shapes = _draw_shapes(
        n_samples,
        lambda width, height: inputs.compute_layouts([(width, height)], is_video=False)[0],
        seed,
        max_tokens=1 << 30,
    )
    is_too_long_N = shapes.tokens_N > max_tokens
    text_tokens_N = np.minimum(shapes.text_tokens_N, max_tokens)
    return DrawnCounts(
        SampleCounts(
            np.where(is_too_long_N, text_tokens_N, shapes.tokens_N),
            np.minimum(shapes.loss_tokens_N, text_tokens_N),
            np.where(is_too_long_N, 0, shapes.tiles_N),
        )
    )


def draw_image_size(rng: np.random.Generator) -> tuple[int, int]:
    """Return (width, height) in pixels, within the paper's bounds (arXiv 2412.05237 §2)."""
    long_side = rng.lognormal(np.log(500), 0.55)
    sides = [
        int(np.clip(side, MIN_IMAGE_SIDE, MAX_IMAGE_SIDE))
        for side in (long_side, long_side * np.exp(-abs(rng.normal(0, 0.35))))
    ]
    width, height = sides if rng.random() < 0.7 else sides[::-1]
    return width, height
