"""Pieces of markdown that show data safely: table cells, tables, embedded images."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

MAX_CELL_CHARS = 300
# A word without a break would push the columns after it out of the page.
_LONG_WORD = re.compile(r"\S{24}")
_ESCAPES = {ord(mark): f"&#{ord(mark)};" for mark in "&<>\\`*_{}[]()#!|~$"}


def escape_cell(value: object, max_chars: int = MAX_CELL_CHARS, *, breaks_words: bool = True) -> str:
    """Return a value as one table cell: cut to `max_chars`, all markup escaped, numbers short.

    Args:
        value: The value.
        max_chars: Characters after which a text is cut.
        breaks_words: Whether long words get places to break, which somebody who copies an id from the page copies too.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text.split())
    text = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return (_LONG_WORD.sub("\\g<0>\u200b", text) if breaks_words else text).translate(_ESCAPES)


def format_markdown_table(rows: Sequence[Mapping[str, object]], *, breaks_words: bool = True) -> str:
    """Return rows as a table with the columns of the first row, or "none" without rows. Values are escaped."""
    if not rows:
        return "none"
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(escape_cell(row[name], breaks_words=breaks_words) for name in columns) + " |" for row in rows
    ]
    return "\n".join(lines)


def encode_data_uri(data: bytes, media_type: str) -> str:
    """Return bytes as a data URI (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def embed_image(image: bytes, alt: str, media_type: str = "image/png", *, max_chars: int | None = None) -> str:
    """Return markdown with the image inside it, or a line that says so if its URI has more than `max_chars`.

    Args:
        image: The file's bytes.
        alt: Text shown in place of the image.
        media_type: Media type of the bytes.
        max_chars: Largest length of the data URI, in characters; None for any.
    """
    uri = encode_data_uri(image, media_type)
    if max_chars is not None and len(uri) > max_chars:
        return f"*{alt}: {len(image) // 1000} kB, too large to show here*"
    return f"![{alt}]({uri})"
