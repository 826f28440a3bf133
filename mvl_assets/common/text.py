"""Formatting of exceptions for one-line messages."""

from __future__ import annotations

MAX_EXCEPTION_CHARS = 200


def format_exception_line(error: BaseException | str, max_chars: int = MAX_EXCEPTION_CHARS) -> str:
    """Return the text of an exception, or any other text, as one line of at most `max_chars` characters."""
    return " ".join(str(error).split())[:max_chars]
