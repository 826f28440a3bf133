"""Text for one line of a message."""

from __future__ import annotations

MAX_EXCEPTION_CHARS = 200


def format_exception_line(error: BaseException | str, max_chars: int = MAX_EXCEPTION_CHARS) -> str:
    """Return an exception's text, or any other, in one line of at most `max_chars` characters."""
    return " ".join(str(error).split())[:max_chars]
