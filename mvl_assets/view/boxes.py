"""Boxes that texts name, to be drawn over the image: `[x1, y1, x2, y2]`, shares of width and height (readers)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_BOXES = 50
_NUMBER = r"\s*([01](?:\.\d+)?)\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")


@dataclass(frozen=True, slots=True)
class TextBox:
    """A box in shares of the image's sides, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


def extract_boxes(texts: Iterable[str]) -> list[TextBox]:
    """Return the boxes that the texts name, each once, at most `MAX_BOXES`; lists of whole numbers are none."""
    boxes: dict[TextBox, None] = {}
    for text in texts:
        for match in _BOX.finditer(text):
            x1, y1, x2, y2 = map(float, match.groups())
            if "." in match.group() and x1 < x2 <= 1 and y1 < y2 <= 1:
                boxes[TextBox(x1, y1, round(x2 - x1, 6), round(y2 - y1, 6))] = None
    return list(boxes)[:MAX_BOXES]
