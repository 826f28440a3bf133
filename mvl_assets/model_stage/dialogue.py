"""Conversations as question-answer pairs, with the image markers taken out for a model and put back for a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER

Turns = list[dict[str, str]]
"""`conversations` as the tables hold it: `[{"from": "human" | "gpt" | "system", "value": ...}]`."""

_MARKER = re.compile(f"(?:{re.escape(IMAGE_MARKER)}|{re.escape(VIDEO_MARKER)})")
_LEADING = re.compile(rf"\A(?:\s*{_MARKER.pattern})+\s*")
_TRAILING = re.compile(rf"\s*(?:{_MARKER.pattern}\s*)+\Z")


@dataclass(frozen=True, slots=True)
class QAPair:
    """One question and its answer, as the sample has them (markers included); of a rewrite, with its task type."""

    question: str
    answer: str
    task_type: str | None = field(default=None, compare=False)

    @property
    def n_markers(self) -> int:
        """How many image and video markers the question has."""
        return len(_MARKER.findall(self.question))


def extract_qa_pairs(turns: Iterable[Mapping[str, str]]) -> list[QAPair]:
    """Return every human turn that an answer follows; system turns and unanswered questions are left out."""
    pairs: list[QAPair] = []
    question: str | None = None
    for turn in turns:
        role, value = turn["from"], turn["value"] or ""
        if role == "human":
            question = value
        elif role == "gpt" and question is not None:
            pairs.append(QAPair(question, value))
            question = None
    return pairs


def strip_markers(text: str) -> str:
    """Return the text for a model: outer markers dropped, inner ones as `[picture 2]`, counted in order."""
    leading_markers = _LEADING.match(text)
    start = leading_markers.end() if leading_markers else 0
    image_numbers = count(len(_MARKER.findall(text[:start])) + 1)
    body = _TRAILING.sub("", text[start:])
    # "picture" is part of the text of every stored request: another word would ask everything again.
    return _MARKER.sub(lambda _: f"[picture {next(image_numbers)}]", body).strip()


def format_pairs(pairs: Sequence[QAPair]) -> str:
    """Return pairs as numbered lines for a prompt."""
    return "\n".join(
        f"Question {number}: {strip_markers(pair.question)}\nAnswer {number}: {strip_markers(pair.answer)}"
        for number, pair in enumerate(pairs, 1)
    )


def format_numbered(texts: Sequence[str]) -> str:
    """Return one text as it is, and several as numbered lines."""
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))


def attach_image_markers(dialogue: Sequence[QAPair], n_images: int, has_video: bool) -> Turns:
    """Return the dialogue as turns, with the markers of all the sample's images in the first human turn.

    A first question that still has a marker for each of them stays as it is; otherwise they are put in front.

    Args:
        dialogue: The pairs.
        n_images: How many images the sample has.
        has_video: Whether it has a video, which takes one marker.
    """
    n_markers = 1 if has_video else n_images
    turns: Turns = []
    for number, pair in enumerate(dialogue):
        question = pair.question
        if number > 0:
            question = _MARKER.sub("", question).strip()
        elif pair.n_markers != n_markers:
            marker = VIDEO_MARKER if has_video else IMAGE_MARKER
            question = f"{marker}\n" * n_markers + _MARKER.sub("", question).strip()
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": pair.answer}]
    return turns


def contains_marker(text: str) -> bool:
    """Return whether a text has an image or video marker."""
    return _MARKER.search(text) is not None
