"""Tiles and token counts are those of transformers' LLaVA-OneVision, and the geometry adds up by itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_assets.media import tiles
from mvl_assets.media.tiles import TileGrid

PAPER = TileGrid(384, 14, tuple((r, c) for r in range(1, 7) for c in range(1, 7)), 4)
SMALL = TileGrid(112, 14, ((1, 1), (1, 2), (2, 1), (2, 2)), 4)
SIDES = st.integers(min_value=1, max_value=4096)


def reference_processor(grid: TileGrid):
    """transformers' processor arithmetic, without loading a tokenizer."""
    patch_cpu_torch()
    module = pytest.importorskip("transformers.models.llava_onevision.processing_llava_onevision")
    images = reference_images(grid)

    class Counts:
        num_image_tokens = grid.patches_per_side**2
        vision_aspect_ratio = f"anyres_max_{grid.max_tiles}"
        image_processor = images
        _get_unpadded_features = module.LlavaOnevisionProcessor._get_unpadded_features

        def count(self, height: int, width: int) -> int:
            return module.LlavaOnevisionProcessor._get_number_of_features(
                self, height, width, grid.tile_size, grid.tile_size
            )

    return Counts()


def reference_images(grid: TileGrid):
    patch_cpu_torch()
    module = pytest.importorskip("transformers.models.llava_onevision.image_processing_pil_llava_onevision")
    return module.LlavaOnevisionImageProcessorPil(
        size={"height": grid.tile_size, "width": grid.tile_size},
        image_grid_pinpoints=grid.grid_pinpoints,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def drawn(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("grid", [PAPER, SMALL], ids=["paper", "demo"])
def test_token_counts_equal_transformers_for_two_thousand_sizes(grid: TileGrid) -> None:
    reference = reference_processor(grid)
    rng = random.Random(0)
    sizes = [(rng.randint(1, 4096), rng.randint(1, 4096)) for _ in range(1500)]
    sizes += [
        (s + d, s * k + e) for s in (112, 224, 384, 768) for k in (1, 2, 3, 6) for d in (-1, 0, 1) for e in (-1, 0, 1)
    ]
    sizes += [(224, 224 * 7), (224 * 7, 224), (1, 4096), (4096, 1), (944, 1153)]
    wrong = [s for s in sizes if tiles.compute_anyres_layout(*s, grid).n_tokens != reference.count(*s)]
    assert not wrong


@pytest.mark.parametrize("grid", [PAPER, SMALL], ids=["paper", "demo"])
def test_anyres_tiles_equal_transformers_pixel_for_pixel(grid: TileGrid) -> None:
    reference = reference_images(grid)
    rng = random.Random(1)
    sizes = [(rng.randint(20, 500), rng.randint(20, 500)) for _ in range(40)] + [(112, 112), (384, 384), (900, 120)]
    for width, height in sizes:
        image = drawn(width, height)
        ours = tiles.cut_anyres(image, grid)
        theirs = reference(images=[[image]], return_tensors="np")["pixel_values"][0]
        assert ours.shape == theirs.shape, (width, height)
        assert ours.shape[0] == tiles.compute_anyres_layout(height, width, grid).n_tiles
        assert np.abs(ours / 127.5 - 1.0 - theirs).max() < 1e-5, (width, height)


def test_padded_tiles_equal_transformers() -> None:
    reference = reference_images(SMALL)
    pictures = [drawn(w, h, w) for w, h in [(50, 80), (80, 50), (112, 112), (301, 300), (300, 301)]]
    theirs = reference(images=[pictures], return_tensors="np")["pixel_values"]
    for image, expected in zip(pictures, theirs, strict=True):
        assert np.abs(tiles.cut_padded(image, SMALL)[0] / 127.5 - 1.0 - expected[0]).max() < 1e-5


def test_token_counts_equal_the_papers() -> None:
    # arXiv 2412.05237 §3: 729 per tile, 196 per video frame; the released code's 729 + 1 for one of several pictures.
    assert tiles.compute_flat_layout(PAPER).n_tokens == 729
    assert tiles.compute_padded_layout(PAPER).n_tokens == 730
    assert tiles.compute_video_layout(32, PAPER).n_tokens == 32 * 196 + 1
    # The released scripts leave `mm_newline_position` at "grid": a newline after each of the 14 rows of a frame.
    assert tiles.compute_video_layout(32, PAPER, "grid").n_tokens == 32 * 210
    assert tiles.compute_anyres_layout(384, 384, PAPER).n_tokens == 729 + 27 * 28


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES)
def test_anyres_tokens_stay_within_the_shrink_limit(height: int, width: int) -> None:
    layout = tiles.compute_anyres_layout(height, width, PAPER)
    side = PAPER.patches_per_side
    kept = layout.shrunk_size or (layout.height, layout.width)
    assert layout.n_tokens == side**2 + kept[0] * (kept[1] + 1)
    assert kept[0] * kept[1] <= PAPER.max_tiles * side**2 * tiles.SHRINK_THRESHOLD**2 + 1e-6
    assert 0 < layout.height <= layout.n_rows * side
    assert 0 < layout.width <= layout.n_columns * side


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES)
def test_with_at_most_four_tiles_the_limit_of_nine_never_matters(height: int, width: int) -> None:
    """vLLM counts with a built-in limit of 9 tiles; grids of at most 4 tiles agree with it."""
    nine = TileGrid(SMALL.tile_size, SMALL.patch_size, SMALL.shapes, 9)
    assert tiles.compute_anyres_layout(height, width, SMALL) == tiles.compute_anyres_layout(height, width, nine)
