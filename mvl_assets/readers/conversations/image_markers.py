r"""Markers that a source writes in its own way, made into `<image>`.

    marker: "<ImageHere>"       one kind of marker for all images
    marker: "<image{1}>"        numbered, the first image is 1        "How does <image1> differ from <image2>?"
    marker: "[IMG{0}]"          numbered, the first image is 0

A numbered marker may come again, also in an answer ("<image2> is brighter."). Images are put in the order in which
questions first name them, after those that none names; a marker that comes again is written "image 2".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.rows import prepend_to_first_question
from mvl_assets.readers.sample import Turn

T = TypeVar("T")
_NUMBER = re.compile(r"\{([01])\}")


def convert_markers(
    turns: tuple[Turn, ...], images: Sequence[T], marker: str
) -> tuple[tuple[Turn, ...], tuple[T, ...]]:
    """Return the turns with `<image>` for a source's own markers, and the images in the order of these.

    Raises:
        RejectError: `marker_mismatch`, where a number names no image.
    """
    number = _NUMBER.search(marker)
    if number is None:
        return tuple(Turn(turn.role, turn.value.replace(marker, IMAGE_MARKER)) for turn in turns), tuple(images)
    pattern, first_number = _build_marker_pattern(marker), int(number.group(1))

    def parse_index(match: re.Match[str]) -> int:
        index = int(match.group(1)) - first_number
        if not 0 <= index < len(images):
            raise RejectError("marker_mismatch", f"{match.group()} names none of {len(images)} images")
        return index

    named = [parse_index(m) for turn in turns if turn.role == "human" for m in pattern.finditer(turn.value)]
    unnamed = [index for index in range(len(images)) if index not in named]
    order = [*unnamed, *dict.fromkeys(named)]
    open_indices = set(named)

    def replace_in_question(match: re.Match[str]) -> str:
        index = parse_index(match)
        if index not in open_indices:
            return replace_in_text(match)
        open_indices.discard(index)
        return IMAGE_MARKER

    def replace_in_text(match: re.Match[str]) -> str:
        return f"image {order.index(parse_index(match)) + 1}"

    converted = tuple(
        Turn(turn.role, pattern.sub(replace_in_question if turn.role == "human" else replace_in_text, turn.value))
        for turn in turns
    )
    if named and unnamed:
        converted = prepend_to_first_question(converted, f"{IMAGE_MARKER}\n" * len(unnamed))
    return converted, tuple(images[index] for index in order)


@lru_cache(maxsize=64)
def _build_marker_pattern(marker: str) -> re.Pattern[str]:
    before, _, after = _NUMBER.split(marker)
    return re.compile(rf"{re.escape(before)}(\d{{1,4}}){re.escape(after)}")
