"""Names that were probably meant by one that is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_SUGGESTIONS = 3


def format_suggestion(name: str, known_names: Iterable[str]) -> str:
    """Return `did you mean …? ` with the names that contain `name` or are spelled like it; "" without any."""
    names = list(known_names)
    matches = [known for known in names if name and name in known] or get_close_matches(name, names)
    if not matches:
        return ""
    return f"did you mean {' or '.join(f'`{match}`' for match in matches[:MAX_SUGGESTIONS])}? "
