"""Copies are told from images that only look alike by their pixels."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.media.copy_detection import build_views, compare_images
from tests.media.image_copies import COPIES, draw_form, draw_waves, encode

RULES = DuplicateRules()


def is_copy(one: bytes, other: bytes) -> bool:
    scores = compare_images(build_views(one), build_views(other))
    return scores is not None and RULES.is_image_copy(scores.correlation, scores.block_difference, scores.lost_edges)


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("image", [draw_waves(), draw_form("Ada Lovelace")], ids=["photo", "page"])
def test_copies_pass(image: Image.Image, name: str) -> None:
    assert is_copy(encode(image), COPIES[name](image))


def test_two_pages_of_one_form_are_not_copies() -> None:
    assert not is_copy(encode(draw_form("Ada Lovelace")), encode(draw_form("Grace M. Hopper")))


def draw_circle(label: str) -> Image.Image:
    """A figure on which one label says how large it is."""
    image = Image.new("RGB", (320, 320), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 40, 280, 280), outline="black", fill=(228, 245, 232), width=3)
    draw.text((220, 150), label, fill="black", font=ImageFont.load_default(size=18), anchor="mb")
    return image


@pytest.mark.parametrize("label", ["2 cm", "7 cm", "12 cm"])
def test_figure_with_another_number_is_not_a_copy(label: str) -> None:
    assert not is_copy(encode(draw_circle("5 cm")), encode(draw_circle(label)))
    assert not is_copy(encode(draw_circle("5 cm")), COPIES["reencoded"](draw_circle(label)))


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_a_figure_pass(name: str) -> None:
    assert is_copy(encode(draw_circle("5 cm")), COPIES[name](draw_circle("5 cm")))


def test_form_with_another_entry_is_not_a_copy() -> None:
    assert not is_copy(encode(draw_form("Room 12")), encode(draw_form("Room 17")))


def test_neighbouring_frame_is_not_a_copy() -> None:
    image = draw_waves()
    ball = Image.new("RGB", (50, 50), "red")
    frames = [image.copy(), image.copy()]
    for frame, x in zip(frames, (100, 130), strict=True):
        frame.paste(ball, (x, 120))
    assert not is_copy(*map(encode, frames))


def test_image_of_another_shape_is_not_compared() -> None:
    wide = encode(draw_waves(0, (400, 200)))
    assert compare_images(build_views(wide), build_views(encode(draw_waves(0, (200, 200))))) is None


def test_blank_images_do_not_correlate() -> None:
    blank = build_views(encode(Image.new("RGB", (90, 90), "white")))
    scores = compare_images(blank, blank)
    assert scores is not None
    assert scores.correlation == 0
