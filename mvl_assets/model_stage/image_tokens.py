"""How many tokens a served model reads for an image: each family of models has a rule of its own.

| rule | models | tokens |
|---|---|---|
| `qwen2_vl` | Qwen2-VL, Qwen2.5-VL, QVQ, LLaVA-OneVision-1.5 | one per 28 x 28 px, of 56 x 56 px to 12,845,056 px |
| `qwen3_vl` | Qwen3-VL | one per 32 x 32 px, of 65,536 px to 16,777,216 px |
| `internvl` | InternVL | 256 per tile of 448 px, at most 12 tiles, and a thumbnail beside several |
| `llava_onevision` | LLaVA-OneVision, MAmmoTH-VL | anyres_max_9: `media.tiles` |
| `default` | all others | 256 per tile of 448 px, at most 12 tiles |

Sizes are those that the models' image processors have by default, and markers around an image are not counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

from mvl_assets.inference.request import ModelRef
from mvl_assets.media.tiles import TileGrid, compute_anyres_layout

DEFAULT_RULE = "default"

TILE_SIDE_PX, TOKENS_PER_TILE, MAX_TILES = 448, 256, 12
# In the order in which InternVL prefers them between equals.
_TILE_SHAPES = sorted(
    ((across, down) for across, down in product(range(1, MAX_TILES + 1), repeat=2) if across * down <= MAX_TILES),
    key=lambda shape: shape[0] * shape[1],
)
_ONEVISION_GRID = TileGrid(384, 14, tuple(product(range(1, 7), range(1, 7))), 9)


@dataclass(frozen=True, slots=True)
class ImageTokenRule:
    """A family's rule.

    Attributes:
        name: Its name.
        models: What names of its models contain.
        count_tokens: Returns the tokens of an image of a width and a height, in pixels.
    """

    name: str
    models: re.Pattern[str]
    count_tokens: Callable[[int, int], int]


def find_image_token_rule(model_name: str) -> ImageTokenRule:
    """Return the rule of a model, by its name."""
    return next(rule for rule in _RULES if rule.models.search(model_name))


def count_image_tokens(model: ModelRef, width: int, height: int) -> int:
    """Return what an image takes of a model, once it is scaled to the longest side that the model gets."""
    longest_side = max(width, height, 1)
    scale = min(1.0, (model.max_image_side or longest_side) / longest_side)
    scaled_width, scaled_height = (max(1, round(side * scale)) for side in (width, height))
    return find_image_token_rule(model.name).count_tokens(scaled_width, scaled_height)


def _count_patches(width: int, height: int, *, side: int, min_pixels: int, max_pixels: int) -> int:
    """Count squares of `side` pixels, once the image is scaled into the bounds (Qwen's `smart_resize`)."""
    down, across = round(height / side), round(width / side)
    n_pixels = down * across * side**2
    if n_pixels > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        return max(1, math.floor(height / scale / side)) * max(1, math.floor(width / scale / side))
    if n_pixels < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * scale / side) * math.ceil(width * scale / side)
    return down * across


def _count_internvl_tokens(width: int, height: int) -> int:
    """Count the tiles of the grid whose shape is nearest to the image's (InternVL's `dynamic_preprocess`)."""
    best, least_difference = _TILE_SHAPES[0], math.inf
    for shape in _TILE_SHAPES:
        n_tiles = shape[0] * shape[1]
        difference = abs(width / height - shape[0] / shape[1])
        is_large = width * height > 0.5 * n_tiles * TILE_SIDE_PX**2
        if difference < least_difference or (difference == least_difference and is_large):
            best, least_difference = shape, difference
    n_tiles = best[0] * best[1]
    return TOKENS_PER_TILE * (n_tiles + (n_tiles > 1))


def _count_onevision_tokens(width: int, height: int) -> int:
    return compute_anyres_layout(height, width, _ONEVISION_GRID).n_tokens


def _count_tile_tokens(width: int, height: int) -> int:
    across, down = (math.ceil(side / TILE_SIDE_PX) for side in (width, height))
    return TOKENS_PER_TILE * min(across * down, MAX_TILES)


_count_qwen2_patches = partial(_count_patches, side=28, min_pixels=56 * 56, max_pixels=12_845_056)
_count_qwen3_patches = partial(_count_patches, side=32, min_pixels=65_536, max_pixels=16_777_216)

# The first that fits counts.
_RULES = tuple(
    ImageTokenRule(name, re.compile(models, re.IGNORECASE), count_tokens)
    for name, models, count_tokens in (
        ("qwen2_vl", r"qwen2(\.5)?-?vl|qvq|llava-onevision-1\.5", _count_qwen2_patches),
        ("qwen3_vl", r"qwen3-?vl", _count_qwen3_patches),
        ("internvl", r"internvl", _count_internvl_tokens),
        ("llava_onevision", r"llava-onevision|mammoth-vl", _count_onevision_tokens),
        (DEFAULT_RULE, "", _count_tile_tokens),
    )
)
