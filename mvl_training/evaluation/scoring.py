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

ALL_CATEGORIES = "all"

_ARTICLES = frozenset({"a", "an", "the"})
_CONCLUSION_PATTERN = re.compile(r"\banswer(?: is|:)", re.IGNORECASE)
_LETTER_PATTERN = re.compile(r"[a-h]")
_OPTION_PATTERN = re.compile(r"^(\(?)([a-h])(\)?[.:)])\s*(.*)$", re.DOTALL)
_THOUSANDS_PATTERN = re.compile(r"(?<=\d),(?=\d{3}\b)")
_NUMBER_PATTERN = re.compile(r"^[-+]?\d*\.?\d+$")
_RELATIONS_PATTERN = re.compile(r"([<>=])")
_UNITS = "$€£%"
_KEPT_PUNCTUATION = frozenset(".%#+-")


def normalize_answer(text: str) -> str:
    """The form in which two answers are compared.

    Lower case, Unicode NFKC (but 2² is not 22), no articles and dashes (unless there is nothing else), no punctuation
    around words and numbers, single spaces; symbols stay. `1,200.0` and `1200` are one number, `$5.00` and `5` one
    amount.
    """
    spaced_text = _RELATIONS_PATTERN.sub(r" \1 ", _THOUSANDS_PATTERN.sub("", _normalize_unicode(text).lower()))
    words: list[str] = []
    fillers: list[str] = []
    for word in "".join(c if _is_kept(c) else " " for c in spaced_text).split():
        bare = _format_number(
            word if _NUMBER_PATTERN.match(word) else word.lstrip("#" + _UNITS).rstrip("." + _UNITS) or word
        )
        (fillers if bare in _ARTICLES or bare in (".", "-") else words).append(bare)
    return " ".join(words or fillers)


def _normalize_unicode(text: str) -> str:
    """NFKC, but for superscripts and subscripts; every minus as a hyphen."""
    normalized_chars = (
        c if unicodedata.decomposition(c).startswith(("<super>", "<sub>")) else unicodedata.normalize("NFKC", c)
        for c in unicodedata.normalize("NFC", text.replace("\u2212", "-"))
    )
    return unicodedata.normalize("NFC", "".join(normalized_chars))


def _is_kept(character: str) -> bool:
    """Letters, digits, marks and symbols; backticks are how text is set."""
    if character.isalnum() or character in _KEPT_PUNCTUATION or character == "_":
        return True
    return character != "`" and unicodedata.category(character)[0] in "MS"


def _format_number(word: str) -> str:
    if not _NUMBER_PATTERN.match(word):
        return word
    value = float(word)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def is_correct(answer: str, reference: str) -> bool:
    """Normalised exact match of the whole answer, or of the line after its last "answer is" or "answer:".

    When both name an option letter (`(B) dog` or `B.`), the letters decide, but for two like `E. coli`, which may be
    names; a bare letter, on either side, is the option it names. Units that are told on both sides must be the same
    (`5%` is not `$5`). An empty answer is wrong.
    """
    *reasoning, conclusion = _CONCLUSION_PATTERN.split(answer)
    conclusion_matches = bool(reasoning) and _matches_reference(conclusion.strip().split("\n")[0], reference)
    return conclusion_matches or _matches_reference(answer, reference)


def _matches_reference(answer: str, reference: str) -> bool:
    if answer.strip() and answer.strip().casefold() == reference.strip().casefold():
        return True
    answer_option, reference_option = _parse_option(answer), _parse_option(reference)
    reference_letter = (
        reference.strip().lower() if _LETTER_PATTERN.fullmatch(reference.strip().lower()) else reference_option.letter
    )
    if reference_letter and answer_option.letter and not (answer_option.may_be_name and reference_option.may_be_name):
        return answer_option.letter == reference_letter
    if answer_option.letter != reference_option.letter and answer_option.letter and reference_option.letter:
        return False
    normalized_answer, normalized_reference = (
        normalize_answer(answer_option.text),
        normalize_answer(reference_option.text),
    )
    if reference_letter and normalized_answer == reference_letter:
        return True
    answer_units, reference_units = ({c for c in text if c in _UNITS} for text in (answer, reference))
    return (
        bool(normalized_reference)
        and normalized_answer == normalized_reference
        and not (answer_units and reference_units and answer_units.isdisjoint(reference_units))
    )


class _Option(NamedTuple):
    """The option letter and the words behind it: `(B) dog` is b and dog, `dog` has no letter."""

    letter: str | None
    text: str
    may_be_name: bool = False


def _parse_option(text: str) -> _Option:
    match = _OPTION_PATTERN.match(text.strip().lower())
    if not match:
        return _Option(None, text)
    opening, letter, closing, option_text = match.groups()
    return _Option(letter, option_text, may_be_name=not opening and closing == "." and bool(option_text.strip()))


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One question asked of one checkpoint. The `blank_` fields are the same question over grey pictures (None: the
    question has none); losses are means per target token of the true answer (None: not measured)."""

    category: str
    reference: str
    correct: bool
    blank_image_correct: bool | None = None
    loss: float | None = None
    blank_image_loss: float | None = None


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """How one checkpoint did in one category (or in `all`). Shares are between 0 and 1.

    `majority_baseline`: always giving the category's most frequent true answer. `random_baseline`: guessing among the distinct true
    answers. In `all` both are means over the questions, each by its own category. `blank_image_accuracy` is the share correct with
    grey pictures among the `n_with_images` questions that have any, `with_image_accuracy` the share correct with the true ones
    among the same. Losses are means over the questions where both were measured.
    """

    category: str
    n_questions: int
    n_correct: int
    accuracy: float
    stderr: float | None
    majority_baseline: float
    random_baseline: float
    n_with_images: int
    with_image_accuracy: float | None
    blank_image_accuracy: float | None
    loss: float | None
    blank_image_loss: float | None


def compute_category_scores(scored_answers: Sequence[ScoredAnswer]) -> list[CategoryScore]:
    """One score per category, by name, and `all` last. Nothing for no outcomes."""
    if not scored_answers:
        return []
    answers_by_category: dict[str, list[ScoredAnswer]] = {}
    for scored_answer in scored_answers:
        answers_by_category.setdefault(scored_answer.category, []).append(scored_answer)
    scores = [
        _build_category_score(category, category_answers, *_compute_baselines(category_answers))
        for category, category_answers in sorted(answers_by_category.items())
    ]
    n_total = len(scored_answers)
    majority_baseline = (
        sum(category_score.majority_baseline * category_score.n_questions for category_score in scores) / n_total
    )
    random_baseline = sum(s.random_baseline * s.n_questions for s in scores) / n_total
    return [*scores, _build_category_score(ALL_CATEGORIES, scored_answers, majority_baseline, random_baseline)]


def _compute_baselines(scored_answers: Sequence[ScoredAnswer]) -> tuple[float, float]:
    reference_counts = Counter(normalize_answer(scored_answer.reference) for scored_answer in scored_answers)
    return reference_counts.most_common(1)[0][1] / len(scored_answers), 1 / len(reference_counts)


def _build_category_score(
    category: str, scored_answers: Sequence[ScoredAnswer], majority_baseline: float, random_baseline: float
) -> CategoryScore:
    n_correct = sum(scored_answer.correct for scored_answer in scored_answers)
    answers_with_images = [outcome for outcome in scored_answers if outcome.blank_image_correct is not None]
    answers_with_losses = [
        outcome for outcome in scored_answers if outcome.loss is not None and outcome.blank_image_loss is not None
    ]
    return CategoryScore(
        category=category,
        n_questions=len(scored_answers),
        n_correct=n_correct,
        accuracy=n_correct / len(scored_answers),
        stderr=compute_standard_error(n_correct, len(scored_answers)),
        majority_baseline=majority_baseline,
        random_baseline=random_baseline,
        n_with_images=len(answers_with_images),
        with_image_accuracy=_compute_mean(float(outcome.correct) for outcome in answers_with_images),
        blank_image_accuracy=_compute_mean(float(bool(outcome.blank_image_correct)) for outcome in answers_with_images),
        loss=_compute_mean(outcome.loss or 0.0 for outcome in answers_with_losses),
        blank_image_loss=_compute_mean(outcome.blank_image_loss or 0.0 for outcome in answers_with_losses),
    )


def compute_standard_error(n_correct: int, n_questions: int) -> float | None:
    """Of a share, from the sample variance of `n_questions` right-or-wrong outcomes; None for fewer than two."""
    if n_questions < 2:
        return None
    accuracy = n_correct / n_questions
    return math.sqrt(accuracy * (1 - accuracy) / (n_questions - 1))


def _compute_mean(values: Iterable[float]) -> float | None:
    value_list = list(values)
    return sum(value_list) / len(value_list) if value_list else None
