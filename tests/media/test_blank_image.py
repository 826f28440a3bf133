"""The control picture differs from the true one in nothing but what is on it."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from mvl_assets.media.image import GREY, ImageError, build_blank_image, encode_image, standardise_image


def _image(width: int, height: int) -> bytes:
    return encode_image(Image.linear_gradient("L").resize((width, height)).convert("RGB"), "PNG")


@pytest.mark.parametrize("size", [(320, 240), (300, 900), (100, 100), (30, 900)])
def test_blank_image_is_grey_and_has_the_standard_size(size: tuple[int, int]) -> None:
    data = _image(*size)
    blank = build_blank_image(data)
    with Image.open(io.BytesIO(blank)) as image:
        assert image.getcolors() == [(image.width * image.height, GREY)]
    assert standardise_image(blank).size == standardise_image(data).size


def test_equal_images_have_equal_blanks() -> None:
    assert build_blank_image(_image(320, 240)) == build_blank_image(_image(320, 240))


def test_blank_of_unusable_bytes_raises() -> None:
    with pytest.raises(ImageError):
        build_blank_image(b"no picture")
