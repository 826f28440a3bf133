"""Hashes of an image: close for its copies, far for others, and the same with a border around it."""

from __future__ import annotations

import pytest
from PIL import Image, ImageOps

from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.media.image import inspect_image
from mvl_assets.media.image_hashes import list_trimmed_views, trim_border
from tests.media.image_copies import COPIES, draw_form, draw_waves, encode


def hashes(image: ImageProperties) -> list[int]:
    return [int(value, 16) for value in (image.pdq, image.trimmed_pdq) if value is not None]


def distance(one: bytes, other: bytes) -> int:
    """Bits in which the closest two of their PDQ hashes differ."""
    return min((a ^ b).bit_count() for a in hashes(inspect_image(one)) for b in hashes(inspect_image(other)))


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("image", [draw_waves(), draw_form("Ada Lovelace")], ids=["photo", "page"])
def test_copies_have_close_hashes(image: Image.Image, name: str) -> None:
    assert distance(encode(image), COPIES[name](image)) <= 40


def test_other_images_have_far_hashes() -> None:
    assert distance(encode(draw_waves(0)), encode(draw_waves(1))) > 80


def test_blank_image_has_no_quality_and_no_border() -> None:
    blank = inspect_image(encode(Image.new("RGB", (90, 90), "white")))
    assert (blank.pdq_quality, blank.trimmed_pdq) == (0, None)
    assert inspect_image(encode(draw_waves())).pdq_quality == 100


def test_image_without_a_border_has_no_second_hash() -> None:
    assert inspect_image(encode(draw_waves())).trimmed_pdq is None


def test_frame_is_removed_before_the_margins_inside_it() -> None:
    page = draw_form("Ada Lovelace").convert("L")
    framed = ImageOps.expand(page, 20, 0)
    trimmed = trim_border(framed)
    assert trimmed is not None
    assert trimmed.tobytes() == page.tobytes()
    sizes = [view.size for view in list_trimmed_views(framed)]
    assert sizes[:2] == [framed.size, page.size]
    assert sizes[2] < page.size


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (17, 17)])
def test_tiny_and_thin_images_have_hashes(size: tuple[int, int]) -> None:
    assert len(inspect_image(encode(Image.new("L", size, 90))).pdq or "") == 64
