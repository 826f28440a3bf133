"""From the raw text of an answer to dialogues, or to a class of why not.

Nothing here is paid for: the raw answers stay stored, so a change of this file costs a recomputation and no request.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema

from mvl_assets.config.prompts import Prompt
from mvl_assets.model_stage.dialogue import Pair, holds_marker

# Everything below a space but tab and newline, DEL, and the C1 block. In a parsed JSON string they are the traces of
# LaTeX: "\frac" reads as a form feed and "rac". A lone surrogate cannot be stored as UTF-8.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# `\theta`, `\times`, `\neq` in JSON become a tab or a newline and a rest that begins in the middle of a word. What text
# may hold too, such as "an" and "not", counts as such a rest only inside a formula.
_EATEN_COMMAND = re.compile(
    r"\t(?:heta|imes|ext(?=\s*\{)|ext(?:bf|it|rm|tt)\b|frac|riangle|herefore|ilde)|\n(?:eq|abla|otin)\b"
    r"|\$[^$]*?(?:\t[a-z]|\n(?:e|u|eg|ot|mid|i)\b)[^$]*\$"
)
# What models of some servers think aloud before they answer, and the fence they put around JSON.
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


class ParseError(ValueError):
    """An answer that gives no dialogue. `error` is one of `ERRORS`."""

    def __init__(self, error: str, message: str) -> None:
        assert error in ERRORS
        self.error = error
        super().__init__(message)


ERRORS = {
    "length": "the token limit cut the answer off",
    "not_finished": "the server ended the answer for another reason than being done",
    "empty": "nothing but white space",
    "bad_json": "not JSON",
    "schema": "JSON that the prompt's schema does not allow",
    "control_character": "a control character in a string: usually LaTeX that a JSON escape has eaten",
    "picture_marker": "the answer itself holds a picture marker, which would break the count of pictures",
}

Dialogue = tuple[Pair, ...]


def parse_answer(prompt: Prompt, text: str, finish_reason: str, kept_question: str | None) -> list[Dialogue]:
    """The dialogues of one answer, in order. Raises `ParseError`.

    `text` prompts keep the question (`kept_question`, markers included) and give one dialogue of one pair. `json`
    prompts give one dialogue per entry of `pairs`, or one dialogue of all `turns`. Pairs said twice count once.
    """
    if finish_reason != "stop":
        raise ParseError("length" if finish_reason == "length" else "not_finished", f"finish_reason {finish_reason!r}")
    text = text.removeprefix("\ufeff")
    if thoughts := _THOUGHTS.match(text):
        text = text[thoughts.end() :]
    if not text.strip():
        raise ParseError("empty", ERRORS["empty"])
    if prompt.output == "text":
        assert kept_question is not None
        return [(Pair(kept_question, _sound(text.strip())),)]
    document = _document(prompt, text)
    if "turns" in document:
        return [tuple(_pair(entry) for entry in document["turns"])]
    return [(pair,) for pair in dict.fromkeys(_pair(entry) for entry in document["pairs"])]


def _document(prompt: Prompt, text: str) -> dict[str, Any]:
    fenced = _FENCED.fullmatch(text)
    try:
        document = json.loads(fenced[1] if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ParseError("bad_json", str(error)) from error
    assert prompt.schema is not None
    problem = next(iter(jsonschema.Draft202012Validator(prompt.schema).iter_errors(document)), None)
    if problem is not None:
        where = "/".join(str(part) for part in problem.absolute_path) or "the whole answer"
        raise ParseError("schema", f"{where}: {problem.message[:200]}")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _pair(entry: dict[str, str]) -> Pair:
    # Stripped afterwards: what an escape has eaten may be white space at the start.
    question, answer = (_sound(entry[key], was_json=True).strip() for key in ("question", "answer"))
    if not question or not answer:
        raise ParseError("empty", "a question or an answer is nothing but white space")
    return Pair(question, answer)


def _sound(text: str, *, was_json: bool = False) -> str:
    text = text.replace("\r\n", "\n")
    found = _CONTROL.search(text) or (_EATEN_COMMAND.search(text) if was_json else None)
    if found:
        raise ParseError("control_character", f"{found[0]!r} at character {found.start()}")
    if holds_marker(text):
        raise ParseError("picture_marker", ERRORS["picture_marker"])
    return text
