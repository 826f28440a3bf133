"""Right or wrong, and how much that is worth: accuracy with its standard error beside what no model gets for free.

Belongs here: comparing an answer with the known one, and summing up. Does not: where answers come from.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ALL = "all"

_ARTICLES = frozenset({"a", "an", "the"})
_CONCLUSION = re.compile(r"\banswer(?: is|:)", re.IGNORECASE)
_LETTER = re.compile(r"[a-h]")
_OPTION = re.compile(r"^(\(?)([a-h])(\)?[.:)])\s*(.*)$", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_NUMBER = re.compile(r"^[-+]?\d*\.?\d+$")
_RELATIONS = re.compile(r"([<>=])")
_UNITS = "$€£%"
_KEPT = frozenset(".%#+-")


def normalise(text: str) -> str:
    """The form in which two answers are compared.

    Lower case, Unicode NFKC (but 2² is not 22), no articles and dashes (unless there is nothing else), no punctuation
    around words and numbers, single spaces; symbols stay. `1,200.0` and `1200` are one number, `$5.00` and `5` one
    amount.
    """
    plain = _RELATIONS.sub(r" \1 ", _THOUSANDS.sub("", _compatible(text).lower()))
    words: list[str] = []
    fillers: list[str] = []
    for word in "".join(c if _is_kept(c) else " " for c in plain).split():
        bare = _as_number(word if _NUMBER.match(word) else word.lstrip("#" + _UNITS).rstrip("." + _UNITS) or word)
        (fillers if bare in _ARTICLES or bare in (".", "-") else words).append(bare)
    return " ".join(words or fillers)


def _compatible(text: str) -> str:
    """NFKC, but for superscripts and subscripts; every minus as a hyphen."""
    parts = (
        c if unicodedata.decomposition(c).startswith(("<super>", "<sub>")) else unicodedata.normalize("NFKC", c)
        for c in unicodedata.normalize("NFC", text.replace("\u2212", "-"))
    )
    return unicodedata.normalize("NFC", "".join(parts))


def _is_kept(character: str) -> bool:
    """Letters, digits, marks and symbols; backticks are how text is set."""
    if character.isalnum() or character in _KEPT or character == "_":
        return True
    return character != "`" and unicodedata.category(character)[0] in "MS"


def _as_number(word: str) -> str:
    if not _NUMBER.match(word):
        return word
    value = float(word)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def is_correct(answer: str, expected: str) -> bool:
    """Normalised exact match of the whole answer, or of the line after its last "answer is" or "answer:".

    When both name an option letter (`(B) dog` or `B.`), the letters decide, but for two like `E. coli`, which may be
    names; a bare letter, on either side, is the option it names. Units that are told on both sides must be the same
    (`5%` is not `$5`). An empty answer is wrong.
    """
    *reasoning, conclusion = _CONCLUSION.split(answer)
    concluded = bool(reasoning) and _matches(conclusion.strip().split("\n")[0], expected)
    return concluded or _matches(answer, expected)


def _matches(answer: str, expected: str) -> bool:
    if answer.strip() and answer.strip().casefold() == expected.strip().casefold():
        return True
    given, true = _option(answer), _option(expected)
    true_letter = expected.strip().lower() if _LETTER.fullmatch(expected.strip().lower()) else true.letter
    if true_letter and given.letter and not (given.may_be_a_name and true.may_be_a_name):
        return given.letter == true_letter
    if given.letter != true.letter and given.letter and true.letter:
        return False
    normal, true_normal = normalise(given.words), normalise(true.words)
    if true_letter and normal == true_letter:
        return True
    units, true_units = ({c for c in text if c in _UNITS} for text in (answer, expected))
    return bool(true_normal) and normal == true_normal and not (units and true_units and units.isdisjoint(true_units))


class _Option(NamedTuple):
    """The option letter and the words behind it: `(B) dog` is b and dog, `dog` has no letter."""

    letter: str | None
    words: str
    may_be_a_name: bool = False


def _option(text: str) -> _Option:
    found = _OPTION.match(text.strip().lower())
    if not found:
        return _Option(None, text)
    opening, letter, closing, words = found.groups()
    return _Option(letter, words, may_be_a_name=not opening and closing == "." and bool(words.strip()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question asked of one checkpoint. The `blank_` fields are the same question over grey pictures (None: the
    question has none); losses are means per target token of the true answer (None: not measured)."""

    category: str
    expected: str
    correct: bool
    blank_correct: bool | None = None
    loss: float | None = None
    blank_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """How one checkpoint did in one category (or in `all`). Shares are between 0 and 1.

    `majority`: always giving the category's most frequent true answer. `uniform`: guessing among the distinct true
    answers. In `all` both are means over the questions, each by its own category. `blank` is the share correct with
    grey pictures among the `with_pictures` questions that have any, `sighted` the share correct with the true ones
    among the same. Losses are means over the questions where both were measured.
    """

    category: str
    questions: int
    correct: int
    accuracy: float
    stderr: float | None
    majority: float
    uniform: float
    with_pictures: int
    sighted: float | None
    blank: float | None
    loss: float | None
    blank_loss: float | None


def score(outcomes: Sequence[Outcome]) -> list[Score]:
    """One score per category, by name, and `all` last. Nothing for no outcomes."""
    if not outcomes:
        return []
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.category, []).append(outcome)
    scores = [_score(name, group, *_chance(group)) for name, group in sorted(groups.items())]
    total = len(outcomes)
    majority = sum(s.majority * s.questions for s in scores) / total
    uniform = sum(s.uniform * s.questions for s in scores) / total
    return [*scores, _score(ALL, outcomes, majority, uniform)]


def _chance(group: Sequence[Outcome]) -> tuple[float, float]:
    answers = Counter(normalise(outcome.expected) for outcome in group)
    return answers.most_common(1)[0][1] / len(group), 1 / len(answers)


def _score(name: str, group: Sequence[Outcome], majority: float, uniform: float) -> Score:
    correct = sum(outcome.correct for outcome in group)
    pictured = [outcome for outcome in group if outcome.blank_correct is not None]
    measured = [outcome for outcome in group if outcome.loss is not None and outcome.blank_loss is not None]
    return Score(
        category=name,
        questions=len(group),
        correct=correct,
        accuracy=correct / len(group),
        stderr=standard_error(correct, len(group)),
        majority=majority,
        uniform=uniform,
        with_pictures=len(pictured),
        sighted=_mean(float(outcome.correct) for outcome in pictured),
        blank=_mean(float(bool(outcome.blank_correct)) for outcome in pictured),
        loss=_mean(outcome.loss or 0.0 for outcome in measured),
        blank_loss=_mean(outcome.blank_loss or 0.0 for outcome in measured),
    )


def standard_error(correct: int, questions: int) -> float | None:
    """Of a share, from the sample variance of `questions` right-or-wrong outcomes; None for fewer than two."""
    if questions < 2:
        return None
    share = correct / questions
    return math.sqrt(share * (1 - share) / (questions - 1))


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
