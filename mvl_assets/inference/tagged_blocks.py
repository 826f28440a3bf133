"""Answers as tagged blocks, for servers without constrained JSON: what the model is told, and the tolerant parser.

A list has one block per entry, named by its singular: `<pair><question>...</question><answer>...</answer></pair>`.
Nothing is escaped, so LaTeX, quotes and code stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_FENCE = re.compile(r"```[a-z]*\s*\n(.*?)\n\s*```", re.DOTALL)


def describe_blocks(schema: Mapping[str, Any]) -> str:
    """Return the instruction that asks for an answer of this schema as tagged blocks."""
    return (
        "Where JSON is asked for, write tagged blocks instead, and nothing before or after them. Nothing is escaped.\n"
        + "\n".join(_list_lines(schema))
    )


def _list_lines(schema: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, part in schema["properties"].items():
        if part.get("type") == "array":
            block = _get_entry_name(name)
            count = f"{part.get('minItems', 1)} to {part['maxItems']}"
            lines += [f"<{block}>", *_list_lines(part["items"]), f"</{block}>", f"({count} of these blocks)"]
        else:
            content = "one of " + ", ".join(map(str, part["enum"])) if "enum" in part else "..."
            lines.append(f"<{name}>{content}</{name}>")
    return lines


def parse_blocks(schema: Mapping[str, Any], text: str) -> Any:
    """Return the document that a text holds, as tagged blocks or as JSON with words around it.

    It need not fit the schema; whoever asked checks that.
    """
    for candidate in (text, *_FENCE.findall(text), text[text.find("{") : text.rfind("}") + 1]):
        try:
            document = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            return document
    return _parse_object(schema, text)


def _parse_object(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, part in schema["properties"].items():
        if part.get("type") == "array":
            document[name] = [
                _parse_object(part["items"], block) for block in _find_blocks(_get_entry_name(name), text)
            ]
        elif blocks := _find_blocks(name, text):
            document[name] = blocks[0].strip()
    return document


def _find_blocks(name: str, text: str) -> list[str]:
    """Return what stands between the tags of a name; an opening tag inside a block belongs to its content."""
    blocks: list[str] = []
    start: int | None = None
    for tag in re.finditer(rf"<(/?){re.escape(name)}>", text, re.IGNORECASE):
        if not tag[1]:
            start = tag.end() if start is None else start
        elif start is not None:
            blocks.append(text[start : tag.start()])
            start = None
    return blocks


def _get_entry_name(name: str) -> str:
    return name.removesuffix("s")
