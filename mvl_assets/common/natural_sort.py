"""Sort order of numbered file names, such as the frames of a video or the parts of an archive."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"(\d+)")


def natural_sort_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `part2` before `part10`."""
    pieces = _DIGITS.split(name)
    return [(int(piece), "") if piece.isdecimal() and len(piece) < 20 else (-1, piece) for piece in pieces]
