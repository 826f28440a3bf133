r"""Turns whose text is a list of parts, as chat APIs and their training files write them.

    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}            (transformers)
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}, …]}  (OpenAI)
    {"role": "user", "content": [{"image": "a.jpg"}, {"text": "What is it?"}]}                           (Qwen)
    {"role": "user", "content": [{"type": "image_path", "content": "a.jpg"}, {"type": "text", "content": "…"}]}  (Oumi)
    {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "crop", "arguments": "{}"}}]}

Parquet and Arrow give every part all the keys that any part has, most of them null. What a key does not name is what
`type` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.common.rejects import RejectError

TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
TEXT_KEYS = ("text", "content", "value")
IMAGE_TYPES = frozenset({"image", "image_url", "image_path", "image_binary", "input_image"})
IMAGE_KEYS = ("image", "image_url", "url", "path", "bytes", "base64", "binary")
MEMBER_KEYS = ("content", "value")
"""Keys of a part under which its text or image is, in order of preference; the last only where `type` says what it is.
"""


def format_parts(parts: Sequence[Any], turn_index: int) -> str:
    """Return a turn's text: its parts, one below the other, with a marker for each image.

    Raises:
        RejectError: `bad_turn` for a part that is neither text nor an image.
    """
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, Mapping):
            raise RejectError("bad_turn", f"turn {turn_index} has a part that is a {type(part).__name__}")
        elif _is_image_part(part):
            texts.append(IMAGE_MARKER)
        elif part.get("type") in (None, *TEXT_TYPES) and (text := _find_text(part)) is not None:
            texts.append(text)
        else:
            kind = part.get("type") or ", ".join(str(key) for key in part)
            raise RejectError("bad_turn", f"turn {turn_index} has a part of the kind {str(kind)[:60]!r}")
    return "\n".join(text for text in texts if text)


def list_part_images(conversation: object) -> list[Any]:
    """Return the images that the parts of a conversation hold or name, in order; none where parts only mark them."""
    cells = []
    for turn in conversation if isinstance(conversation, list | tuple) else ():
        content = turn.get("content") if isinstance(turn, Mapping) else None
        for part in content if isinstance(content, list | tuple) else ():
            if isinstance(part, Mapping) and _is_image_part(part) and (cell := _find_image(part)) is not None:
                cells.append(cell)
    return cells


def format_tool_calls(calls: object) -> str | None:
    """Return the calls of an assistant's turn as JSON, one a line; None when there are none."""
    if not isinstance(calls, list | tuple) or not calls:
        return None
    functions = [call.get("function") or call if isinstance(call, Mapping) else call for call in calls]
    return "\n".join(json.dumps(function, ensure_ascii=False, default=str) for function in functions)


def _find_text(part: Mapping[str, Any]) -> str | None:
    return next((part[key] for key in TEXT_KEYS if isinstance(part.get(key), str)), None)


def _is_image_part(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return _find_image(part) is not None if kind is None else isinstance(kind, str) and kind in IMAGE_TYPES


def _find_image(part: Mapping[str, Any]) -> Any:
    for key in IMAGE_KEYS if part.get("type") is None else (*IMAGE_KEYS, *MEMBER_KEYS):
        value = part.get(key)
        if isinstance(value, Mapping) and "bytes" not in value:
            value = value.get("url") or value.get("path")
        if value not in (None, ""):
            return value
    return None
