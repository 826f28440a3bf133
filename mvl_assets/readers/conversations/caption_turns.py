"""Turns for formats whose texts have no image markers: captions, HTML, questions about tables.

Texts that already hold a marker are refused. Formats that write their own markers use `rows.add_image_markers`.
"""

from __future__ import annotations

from collections.abc import Iterable

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.rows import add_image_markers, parse_turns
from mvl_assets.readers.sample import Turn

MAX_TEXT_CHARS = 1 << 20
"""Characters one question or answer may have."""


def build_caption_turns(pairs: Iterable[tuple[str, str]], n_images: int) -> tuple[Turn, ...]:
    """Return the turns of (question, answer) pairs with all markers before the first question.

    Raises:
        RejectError: `marker_in_text` for a text that holds `<image>` or `<video>` by chance, which would name an image
            that does not exist; and what `parse_turns` raises.
    """
    turns = parse_turns(
        [turn for question, answer in pairs for turn in (_build_turn("human", question), _build_turn("gpt", answer))]
    )
    return add_image_markers(turns, n_images)


def _build_turn(role: str, text: object) -> dict[str, object]:
    if isinstance(text, str):
        if len(text) > MAX_TEXT_CHARS:
            raise RejectError("too_large", f"a text of {len(text)} characters, more than {MAX_TEXT_CHARS}")
        embedded_marker = next((marker for marker in (IMAGE_MARKER, VIDEO_MARKER) if marker in text), None)
        if embedded_marker is not None:
            raise RejectError("marker_in_text", f"the text itself holds {embedded_marker}")
    return {"from": role, "value": text}
