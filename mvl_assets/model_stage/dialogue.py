"""Reading and writing conversations as question-answer pairs, with the picture markers taken out and put back.

Belongs here: what every stage that shows a conversation to a model needs. Does not: any prompt, any table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from mvl_assets.readers.sample import IMAGE_MARKER, VIDEO_MARKER

Turns = list[dict[str, str]]
"""`conversations` as the tables hold it: `[{"from": "human" | "gpt" | "system", "value": ...}]`."""

_MARKER = re.compile(f"(?:{re.escape(IMAGE_MARKER)}|{re.escape(VIDEO_MARKER)})")
_LEADING = re.compile(rf"\A(?:\s*{_MARKER.pattern})+\s*")
_TRAILING = re.compile(rf"\s*(?:{_MARKER.pattern}\s*)+\Z")


@dataclass(frozen=True, slots=True)
class Pair:
    """One question and its answer, as the sample has them (markers included)."""

    question: str
    answer: str

    @property
    def markers(self) -> int:
        return len(_MARKER.findall(self.question))


def pairs_of(turns: Iterable[Mapping[str, str]]) -> list[Pair]:
    """Every human turn that an answer follows. System turns and unanswered questions are passed over."""
    pairs: list[Pair] = []
    question: str | None = None
    for turn in turns:
        role, value = turn["from"], turn["value"] or ""
        if role == "human":
            question = value
        elif role == "gpt" and question is not None:
            pairs.append(Pair(question, value))
            question = None
    return pairs


def readable(text: str) -> str:
    """The text as a model may read it: outer markers dropped, inner ones as `[picture 2]` counted in order."""
    lead = _LEADING.match(text)
    start = lead.end() if lead else 0
    numbers = count(len(_MARKER.findall(text[:start])) + 1)
    body = _TRAILING.sub("", text[start:])
    return _MARKER.sub(lambda _: f"[picture {next(numbers)}]", body).strip()


def listed(pairs: Sequence[Pair]) -> str:
    """Pairs as numbered lines for a prompt."""
    return "\n".join(
        f"Question {number}: {readable(pair.question)}\nAnswer {number}: {readable(pair.answer)}"
        for number, pair in enumerate(pairs, 1)
    )


def with_pictures(dialogue: Sequence[Pair], n_images: int, video: bool) -> Turns:
    """The dialogue as turns, where the markers of all the sample's pictures are in the first human turn.

    A first question that has kept its own markers for all of them stays as it is; otherwise they are put in front.
    """
    wanted = 1 if video else n_images
    turns: Turns = []
    for number, pair in enumerate(dialogue):
        question = pair.question
        if number > 0:
            question = _MARKER.sub("", question).strip()
        elif pair.markers != wanted:
            marker = VIDEO_MARKER if video else IMAGE_MARKER
            question = f"{marker}\n" * wanted + _MARKER.sub("", question).strip()
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": pair.answer}]
    return turns


def holds_marker(text: str) -> bool:
    return _MARKER.search(text) is not None
