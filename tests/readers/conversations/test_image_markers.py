"""Markers that a source writes in its own way become `<image>`, in the order of the images."""

from __future__ import annotations

import pytest

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.image_markers import convert_markers
from mvl_assets.readers.sample import Turn


def convert(marker: str, images: str, *texts: str) -> tuple[list[str], str]:
    turns = tuple(Turn("human" if n % 2 == 0 else "gpt", text) for n, text in enumerate(texts))
    converted, ordered = convert_markers(turns, images, marker)
    return [turn.value for turn in converted], "".join(ordered)


@pytest.mark.parametrize(
    ("marker", "texts", "expected", "order"),
    [
        ("<ImageHere>", ("<ImageHere>What?", "It."), ["<image>What?", "It."], "ab"),
        ("<image{1}>", ("<image1> or <image2>?", "<image2>"), ["<image> or <image>?", "image 2"], "ab"),
        ("<img{0}>", ("<img0> or <img1>?", "<img0>"), ["<image> or <image>?", "image 1"], "ab"),
        ("<image {1}>", ("<image 2> or <image 1>?", "<image 2>"), ["<image> or <image>?", "image 1"], "ba"),
        (
            "[IMG{1}]",
            ("[IMG2]?", "No.", "[IMG2] or [IMG1]?", "So."),
            ["<image>?", "No.", "image 1 or <image>?", "So."],
            "ba",
        ),
        ("<image{1}>", ("See <image2>.", "Yes."), ["<image>\nSee <image>.", "Yes."], "ab"),
        ("<image{1}>", ("What?", "It."), ["What?", "It."], "ab"),
    ],
)
def test_markers_become_the_projects_own(marker: str, texts: tuple[str, ...], expected: list[str], order: str) -> None:
    assert convert(marker, "ab", *texts) == (expected, order)


def test_a_number_without_an_image_is_a_mismatch() -> None:
    for text in ("<image3>?", "<image0>?"):
        with pytest.raises(RejectError, match="names none of 2 images"):
            convert("<image{1}>", "ab", text, "x")
