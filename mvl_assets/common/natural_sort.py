"""The order of files that are numbered: a video's frames, an archive's parts. Names only; nothing is opened."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"(\d+)")


def natural_sort_key(name: str) -> list[tuple[int, str]]:
    """A key that sorts `part2` before `part10`."""
    pieces = _DIGITS.split(name)
    return [(int(piece), "") if piece.isdecimal() and len(piece) < 20 else (-1, piece) for piece in pieces]
