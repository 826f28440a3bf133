"""Answers that were cut at a limit of their length, and the request that leaves them more room.

Constrained decoding closes a string at the `maxLength` of the schema and ends with `stop`, as if the model had
finished: only the string itself shows that it was cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mvl_assets.inference.request import Request

TOKEN_LIMIT, STRING_LIMIT = "length", "at_length_limit"
"""Error classes: cut by `max_tokens`, and by the `maxLength` of a string."""
LENGTH_ERRORS = frozenset({TOKEN_LIMIT, STRING_LIMIT})

# Tokens and characters of the re-ask of an answer that was cut, over those of the request before.
LONGER_FACTOR = 2
# Strings with a shorter limit hold letters, codes and names, which may well be as long as is allowed.
MIN_TEXT_LIMIT = 64
# Where no token fits into the rest of a string any more, it ends short of its limit by less than a long token.
MAX_TOKEN_CHARS = 16

_SENTENCE_END = re.compile(r"[.!?…。！？।؟:;$`|>}\]][\s\"'”’»)*_\]]*\Z")


def lengthen_request(request: Request, sampling: Mapping[str, Any]) -> Request:
    """Return the request with `sampling`, but with `LONGER_FACTOR` times the tokens, and as many characters a text."""
    max_tokens = LONGER_FACTOR * int(sampling["max_tokens"])
    output = request.output
    if output.schema is not None:
        output = replace(output, schema=lengthen_schema(output.schema))
    return replace(request, sampling={**sampling, "max_tokens": max_tokens}, output=output)


def lengthen_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with `LONGER_FACTOR` times the `maxLength` of its texts."""
    lengthened = dict(schema)
    if _has_text_limit(schema):
        lengthened["maxLength"] = LONGER_FACTOR * schema["maxLength"]
    if "items" in schema:
        lengthened["items"] = lengthen_schema(schema["items"])
    if "properties" in schema:
        lengthened["properties"] = {name: lengthen_schema(part) for name, part in schema["properties"].items()}
    return lengthened


def find_cut_text(schema: Mapping[str, Any], document: Any) -> str | None:
    """Return which text of a document that fits the schema was cut at its limit, and where; None if none was."""
    return next(_iter_cut_texts(schema, document, ()), None)


def _iter_cut_texts(schema: Mapping[str, Any], value: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, str):
        if _has_text_limit(schema) and is_cut(value, schema["maxLength"]):
            yield f"{'/'.join(path)}: {len(value)} of at most {schema['maxLength']} characters, …{value[-40:]!r}"
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _iter_cut_texts(schema["items"], item, (*path, str(index)))
    elif isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name in value:
                yield from _iter_cut_texts(part, value[name], (*path, name))


def is_cut(text: str, limit: int) -> bool:
    """Return whether a text ends at its limit, or less than a token before it and not at the end of a sentence."""
    return len(text) >= limit or (len(text) > limit - MAX_TOKEN_CHARS and not _SENTENCE_END.search(text))


def _has_text_limit(schema: Mapping[str, Any]) -> bool:
    return "enum" not in schema and schema.get("maxLength", 0) >= MIN_TEXT_LIMIT
