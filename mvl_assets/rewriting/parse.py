"""Parser of rewriting answers: raw text to dialogues, or to an error class.

Raw answers stay stored, so a change to this module costs a recomputation but no request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema

from mvl_assets.common.rejects import RejectError
from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.tagged_blocks import parse_blocks
from mvl_assets.model_stage.dialogue import QAPair, contains_marker
from mvl_assets.model_stage.length_limits import STRING_LIMIT, TOKEN_LIMIT, find_cut_text, lengthen_schema

# Everything below a space but tab and newline, DEL, and the C1 block. In a parsed JSON string they are the traces of
# LaTeX: "\frac" reads as a form feed and "rac". A lone surrogate cannot be stored as UTF-8.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# `\theta`, `\times`, `\neq` in JSON become a tab or a newline and the remainder of the command. Remainders that plain
# text may hold too, such as "eg" and "not", count only inside a formula.
_MANGLED_LATEX = re.compile(
    r"\t(?:heta|imes|ext(?=\s*\{)|ext(?:bf|it|rm|tt)\b|frac|riangle|herefore|ilde)|\n(?:eq|abla|otin)\b"
    r"|\$[^$]*?(?:\t[a-z]|\n(?:e|u|eg|ot|mid|i)\b)[^$]*\$"
)
# The reasoning that models of some servers write before the answer, and the fence they put around JSON.
_THINK_BLOCK = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_CODE_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


class ParseError(RejectError):
    """An answer that gives no dialogue. `code` is one of `PARSE_ERRORS`."""

    def __init__(self, code: str, message: str) -> None:
        assert code in PARSE_ERRORS
        super().__init__(code, message)


PARSE_ERRORS = {
    TOKEN_LIMIT: "the token limit cut the answer off",
    STRING_LIMIT: "a string ends at the limit of its length, where constrained decoding cut it",
    "not_finished": "the server ended the answer for a reason other than completion",
    "empty": "nothing but white space",
    "bad_json": "not JSON",
    "schema": "JSON that the prompt's schema does not allow",
    "control_character": "a control character in a string: usually LaTeX mangled by a JSON escape",
    "image_marker": "the answer itself holds an image marker, which would break the count of images",
}

Dialogue = tuple[QAPair, ...]


def parse_answer(
    prompt: Prompt,
    text: str,
    finish_reason: str,
    preserved_question: str | None,
    *,
    is_lengthened: bool = False,
    is_constrained: bool = True,
) -> list[Dialogue]:
    """Return the dialogues of one answer, in order.

    A `text` prompt preserves the question and gives one dialogue of one pair. A `json` prompt gives one dialogue per
    entry of `pairs`, or one dialogue of all `turns`. Repeated pairs count once.

    Args:
        prompt: The prompt that was answered.
        text: The answer.
        finish_reason: The server's reason for ending it.
        preserved_question: The sample's question, markers included, for a `text` prompt.
        is_constrained: Whether the server was told the schema; else tagged blocks, and JSON with words around it, do.
        is_lengthened: Whether the schema that was sent was the prompt's with more room (`length_limits`).

    Raises:
        ParseError: The answer gives no dialogue.
    """
    if finish_reason != "stop":
        raise ParseError(
            TOKEN_LIMIT if finish_reason == "length" else "not_finished", f"finish_reason {finish_reason!r}"
        )
    text = text.removeprefix("\ufeff")
    if think_block := _THINK_BLOCK.match(text):
        text = text[think_block.end() :]
    if not text.strip():
        raise ParseError("empty", PARSE_ERRORS["empty"])
    if prompt.output == "text":
        assert preserved_question is not None
        return [(QAPair(preserved_question, _check_text(text.strip())),)]
    assert prompt.schema is not None
    schema = lengthen_schema(prompt.schema) if is_lengthened else prompt.schema
    document = _parse_json_document(text) if is_constrained else parse_blocks(schema, text)
    _check_document(schema, document)
    entries = document["turns"] if "turns" in document else document["pairs"]
    is_json = is_constrained or text.lstrip().startswith(("{", "```"))
    pairs = [_parse_pair(entry, from_json=is_json) for entry in entries]
    return [tuple(pairs)] if "turns" in document else [(pair,) for pair in dict.fromkeys(pairs)]


def _parse_json_document(text: str) -> Any:
    code_fence = _CODE_FENCE.fullmatch(text)
    try:
        return json.loads(code_fence[1] if code_fence else text, parse_constant=_reject_json_constant)
    except (ValueError, RecursionError) as error:
        raise ParseError("bad_json", str(error)) from error


def _check_document(schema: Mapping[str, Any], document: Any) -> None:
    schema_error = next(iter(jsonschema.Draft202012Validator(schema).iter_errors(document)), None)
    if schema_error is not None:
        json_path = "/".join(str(segment) for segment in schema_error.absolute_path) or "the whole answer"
        raise ParseError("schema", f"{json_path}: {schema_error.message[:200]}")
    if cut_text := find_cut_text(schema, document):
        raise ParseError(STRING_LIMIT, cut_text)


def _reject_json_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_pair(entry: dict[str, str], *, from_json: bool) -> QAPair:
    # Stripped after the check: white space at the start may be what is left of a mangled escape.
    question, answer = (_check_text(entry[key], from_json=from_json).strip() for key in ("question", "answer"))
    if not question or not answer:
        raise ParseError("empty", "a question or an answer is nothing but white space")
    return QAPair(question, answer, entry.get("kind"))


def _check_text(text: str, *, from_json: bool = False) -> str:
    text = text.replace("\r\n", "\n")
    defect = _CONTROL_CHARACTER.search(text) or (_MANGLED_LATEX.search(text) if from_json else None)
    if defect:
        raise ParseError("control_character", f"{defect[0]!r} at character {defect.start()}")
    if contains_marker(text):
        raise ParseError("image_marker", PARSE_ERRORS["image_marker"])
    return text
