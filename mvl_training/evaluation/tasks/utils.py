"""How the drawn questions are shown and scored. lmms-eval imports this file by its path, in its own environment.

Belongs here: the functions that the task files beside it name. Does not: drawing (`mvl_training.evaluation.benchmarks.synthetic_tasks`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

IMAGE_MARKER = "<image>"
# "A" names an option unless it is the article of what follows: "a green bar", but "a is higher" and "a, the green bar".
_OPTION_LETTER = r"\b(?:[b-d]|a(?!\s+(?!(?:is|has)\b)\w))\b"


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """The pictures in order."""
    return [image.convert("RGB") for image in doc["images"]]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The words, for models that are shown pictures first."""
    return str(doc["text"]).replace(IMAGE_MARKER, "").strip()


def doc_to_messages(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """One user message with each picture where its marker stands."""
    images = iter(doc_to_visual(doc))
    content: list[dict[str, Any]] = []
    for number, text in enumerate(str(doc["text"]).split(IMAGE_MARKER)):
        if number:
            content.append({"type": "image", "url": next(images)})
        # A picture is followed by a line break in every chat format here; the one of the text would be a second.
        if text.removeprefix("\n"):
            content.append({"type": "text", "text": text.removeprefix("\n")})
    return [{"role": "user", "content": content}]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 when the first number, option letter or place that was said is the answer, whatever its case."""
    reference = str(doc["answer"]).lower()
    answer_pattern = (
        r"\d+" if reference.isdigit() else _OPTION_LETTER if len(reference) == 1 else r"\b(?:first|second)\b"
    )
    match = re.search(answer_pattern, results[0].lower())
    return {"exact_match": float(match is not None and match.group() == reference)}
