"""Samples as long as LLaVA-OneVision-type data: 12% text alone, 2,400 tokens on average, the 99th percentile 4,350.

Belongs here: drawing sizes. Used by the benchmarks of packing (`training.py`) and of a step on a GPU (`gpu_step.py`).
Picture sizes are drawn and brought to tokens and tiles by the geometry that training uses; text is log-normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvl_assets.media.tiles import Layout, TileGrid, anyres_layout

TEXT_ONLY = 0.12
SHORTEST, LONGEST = 224, 4096
SIZES = 4000
"""Different picture sizes: a million samples share them."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """N samples: `text_N` tokens of text, of which `targets_N` are learned; `picture_N` is a place in `layouts`, -1 for
    text alone. `sizes` are the (width, height) that the layouts were made for."""

    text_N: np.ndarray
    targets_N: np.ndarray
    picture_N: np.ndarray
    layouts: tuple[Layout, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def tokens_N(self) -> np.ndarray:
        return self.text_N + np.array([y.tokens for y in self.layouts] + [0])[self.picture_N]

    @property
    def tiles_N(self) -> np.ndarray:
        return np.array([y.tiles for y in self.layouts] + [0])[self.picture_N]


def draw(count: int, grid: TileGrid, seed: int, longest: int) -> Drawn:
    """`count` samples of at most `longest` tokens. Equal arguments give equal samples."""
    rng = np.random.default_rng(seed)
    sizes = tuple(picture_size(rng) for _ in range(min(SIZES, count)))
    layouts = tuple(anyres_layout(height, width, grid) for width, height in sizes)
    alone = rng.random(count) < TEXT_ONLY
    text = np.where(alone, 40 + rng.lognormal(np.log(350), 0.8, count), 30 + rng.lognormal(np.log(110), 0.7, count))
    picture = np.where(alone, -1, rng.integers(0, len(sizes), count))
    visual = np.array([y.tokens for y in layouts] + [0])[picture]
    text = np.clip(text.astype(np.int64), 8, longest - visual)
    return Drawn(text, np.maximum(1, (text * 0.7).astype(np.int64)), picture, layouts, sizes)


def picture_size(rng: np.random.Generator) -> tuple[int, int]:
    """(width, height) in pixels, within the paper's bounds (arXiv 2412.05237 §2)."""
    longer = rng.lognormal(np.log(500), 0.55)
    sides = [int(np.clip(side, SHORTEST, LONGEST)) for side in (longer, longer * np.exp(-abs(rng.normal(0, 0.35))))]
    width, height = sides if rng.random() < 0.7 else sides[::-1]
    return width, height
