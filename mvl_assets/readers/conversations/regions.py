"""Shared by readers of regions: a question about one image, and boxes as text.

A box is written `[x1, y1, x2, y2]`: upper left and lower right corner, x as a share of the image's width and y of its
height, three decimals. That is Shikra's form (arXiv 2306.15195, "Numerical representation of position"). LLaVA-1.5
writes two decimals relative to the image padded to a square (haotian-liu/LLaVA, issue 606); images here are not
padded to a square, and two decimals would be off by up to 20 pixels at the longest side the paper allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.rows import add_image_markers, build_qa_turns
from mvl_assets.readers.sample import Turn

BOX_FORMAT = "as [x1, y1, x2, y2], shares of its width and height from 0 to 1"
"""How a request asks for boxes, after words that name the image."""


class ImageSize(NamedTuple):
    """An image's sides in pixels."""

    width: int
    height: int


class Box(NamedTuple):
    """A box in pixels from the upper left corner of the image, as COCO and Visual Genome store it."""

    x: float
    y: float
    width: float
    height: float


def build_image_qa_turns(question: str, answer: str) -> tuple[Turn, ...]:
    """Return one question about one image. Raises `RejectError`, also for a text that holds a marker of its own."""
    return add_image_markers(build_qa_turns(f"{IMAGE_MARKER}\n{question}", answer), 1)


def collapse_whitespace(text: object) -> str:
    """Return the text with single spaces, "" for what is not text."""
    return " ".join(text.split()) if isinstance(text, str) else ""


def parse_size(value: Mapping[str, Any]) -> ImageSize:
    """Return the fields `width` and `height`. Raises `RejectError`: `bad_size`."""
    sides = value.get("width"), value.get("height")
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 1 << 31 for side in sides):
        raise RejectError("bad_size", "the image's width and height are not given as whole numbers of pixels")
    return ImageSize(*sides)  # type: ignore[arg-type]


def parse_box(values: object) -> Box:
    """Return a box of four numbers. Raises `RejectError`: `bad_box` for anything else, and for negative sides."""
    numbers = [_to_float(value) for value in values] if isinstance(values, list | tuple) and len(values) == 4 else []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise RejectError("bad_box", "a box is not given as four numbers")
    box = Box(*numbers)
    if box.width < 0 or box.height < 0:
        raise RejectError("bad_box", f"a box has the sides {box.width:g} and {box.height:g}")
    return box


def format_box(box: Box, size: ImageSize) -> str:
    """Return the box as text, cut off at the image's edges. Raises `RejectError`: `bad_box` when it is outside."""
    left, right = box.x / size.width, (box.x + box.width) / size.width
    top, bottom = box.y / size.height, (box.y + box.height) / size.height
    if right < 0 or bottom < 0 or left > 1 or top > 1:
        raise RejectError("bad_box", f"a box at {box.x:g}, {box.y:g} is outside the image")
    clipped_fractions = (min(max(0.0, fraction), 1.0) for fraction in (left, top, right, bottom))
    return f"[{', '.join(f'{share:.3f}' for share in clipped_fractions)}]"


def format_boxes_by_name(boxes: Iterable[tuple[str, str]]) -> str:
    """Return one line `name: box, box` per name of (name, box as text), in the order in which names come first."""
    lines: dict[str, list[str]] = {}
    for name, text in boxes:
        lines.setdefault(name, []).append(text)
    return "\n".join(f"{name}: {', '.join(texts)}" for name, texts in lines.items())


def _to_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf
