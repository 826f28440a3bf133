"""Reading and writing conversations as question-answer pairs, with the picture markers taken out and put back.

Belongs here: what every stage that shows a conversation to a model needs. Does not: any prompt, any table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER

Turns = list[dict[str, str]]
"""`conversations` as the tables hold it: `[{"from": "human" | "gpt" | "system", "value": ...}]`."""

_MARKER = re.compile(f"(?:{re.escape(IMAGE_MARKER)}|{re.escape(VIDEO_MARKER)})")
_LEADING = re.compile(rf"\A(?:\s*{_MARKER.pattern})+\s*")
_TRAILING = re.compile(rf"\s*(?:{_MARKER.pattern}\s*)+\Z")


@dataclass(frozen=True, slots=True)
class QAPair:
    """One question and its answer, as the sample has them (markers included)."""

    question: str
    answer: str

    @property
    def n_markers(self) -> int:
        return len(_MARKER.findall(self.question))


def extract_qa_pairs(turns: Iterable[Mapping[str, str]]) -> list[QAPair]:
    """Every human turn that an answer follows. System turns and unanswered questions are passed over."""
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
    """The text as a model may read it: outer markers dropped, inner ones as `[picture 2]` counted in order."""
    leading_markers = _LEADING.match(text)
    start = leading_markers.end() if leading_markers else 0
    image_numbers = count(len(_MARKER.findall(text[:start])) + 1)
    body = _TRAILING.sub("", text[start:])
    return _MARKER.sub(lambda _: f"[picture {next(image_numbers)}]", body).strip()


def format_pairs(pairs: Sequence[QAPair]) -> str:
    """Pairs as numbered lines for a prompt."""
    return "\n".join(
        f"Question {number}: {strip_markers(pair.question)}\nAnswer {number}: {strip_markers(pair.answer)}"
        for number, pair in enumerate(pairs, 1)
    )


def attach_image_markers(dialogue: Sequence[QAPair], n_images: int, has_video: bool) -> Turns:
    """The dialogue as turns, where the markers of all the sample's pictures are in the first human turn.

    A first question that has kept its own markers for all of them stays as it is; otherwise they are put in front.
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
    return _MARKER.search(text) is not None
