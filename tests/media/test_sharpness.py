"""Sharpness: low for what is blurred, whatever size and format it has."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mvl_assets.media.image import inspect_image


def draw_scene(side: int) -> Image.Image:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    return Image.fromarray(grey).resize((side, side), Image.Resampling.NEAREST)


def measure(image: Image.Image, format: str = "PNG") -> float:
    buffer = io.BytesIO()
    image.save(buffer, format, quality=95)
    sharpness = inspect_image(buffer.getvalue()).sharpness
    assert sharpness is not None
    return sharpness


def test_a_blurred_image_is_less_sharp() -> None:
    scene = draw_scene(512)
    values = [measure(scene.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 4, 8, 16)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[2]


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("side", [1024, 2048])
def test_size_and_format_make_little_difference(side: int, format: str) -> None:
    assert measure(draw_scene(side), format) == pytest.approx(measure(draw_scene(256)), rel=0.25)


def test_an_image_without_edges_has_none_and_a_tiny_one_is_not_measured() -> None:
    assert measure(Image.new("RGB", (300, 300), "red")) == 0
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    assert inspect_image(buffer.getvalue()).sharpness is None
