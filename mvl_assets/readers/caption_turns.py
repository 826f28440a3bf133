"""Turns for formats whose texts know nothing of picture markers: captions, HTML, questions about tables.

Belongs here: putting the markers where they belong, and refusing texts that already look marked. Formats that write
their own markers use `rows.with_markers`.
"""

from __future__ import annotations

from collections.abc import Iterable

from mvl_assets.readers.rows import RowError, turns_of, with_markers
from mvl_assets.readers.sample import IMAGE_MARKER, VIDEO_MARKER, Turn

MAX_TEXT = 1 << 20
"""Characters one question or answer may have."""


def asked(pairs: Iterable[tuple[str, str]], pictures: int) -> tuple[Turn, ...]:
    """The turns of (question, answer) pairs with all markers before the first question. Raises `RowError`.

    A text that holds `<image>` or `<video>` by chance would name a picture that is not there: `marker_in_text`.
    """
    turns = turns_of([turn for asked, told in pairs for turn in (_turn("human", asked), _turn("gpt", told))])
    return with_markers(turns, pictures)


def _turn(role: str, text: object) -> dict[str, object]:
    if isinstance(text, str):
        if len(text) > MAX_TEXT:
            raise RowError("too_large", f"a text of {len(text)} characters, more than {MAX_TEXT}")
        found = next((marker for marker in (IMAGE_MARKER, VIDEO_MARKER) if marker in text), None)
        if found is not None:
            raise RowError("marker_in_text", f"the text itself holds {found}")
    return {"from": role, "value": text}
