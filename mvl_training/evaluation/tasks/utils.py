"""Functions that the task files in this folder name: how synthetic questions are shown and scored.

lmms-eval imports this file by its path, in its own environment, where this project is installed too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mvl_assets.common.markers import IMAGE_MARKER

# "A" names an option unless it is the article of what follows: "a green bar", but "a is higher" and "a, the green bar".
_OPTION_LETTER = r"\b(?:[b-d]|a(?!\s+(?!(?:is|has)\b)\w))\b"


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """Return the images in order."""
    return [image.convert("RGB") for image in doc["images"]]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Return the text without markers, for models that take images first."""
    return str(doc["text"]).replace(IMAGE_MARKER, "").strip()


def doc_to_messages(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return one user message with each image in place of its marker."""
    images = iter(doc_to_visual(doc))
    content: list[dict[str, Any]] = []
    for number, text in enumerate(str(doc["text"]).split(IMAGE_MARKER)):
        if number:
            content.append({"type": "image", "url": next(images)})
        # Every chat format here puts a line break after an image; the text's own would be a second one.
        if text.removeprefix("\n"):
            content.append({"type": "text", "text": text.removeprefix("\n")})
    return [{"role": "user", "content": content}]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return 1 when the first number, option letter or ordinal of the answer is the reference, whatever its case."""
    reference = str(doc["answer"]).lower()
    answer_pattern = (
        r"\d+" if reference.isdigit() else _OPTION_LETTER if len(reference) == 1 else r"\b(?:first|second)\b"
    )
    match = re.search(answer_pattern, results[0].lower())
    return {"exact_match": float(match is not None and match.group() == reference)}
