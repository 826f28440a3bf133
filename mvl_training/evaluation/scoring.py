"""Accuracy with its standard error, and the baselines: guessing, and the same questions over grey images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvl_assets.answer_matching.normalize import normalize_answer

ALL_CATEGORIES = "all"


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One checkpoint's result on one question.

    Attributes:
        category: Category of the question.
        reference: The reference answer.
        correct: Whether the answer was correct.
        blank_image_correct: The same with grey images; None for a question without images.
        loss: Mean loss per token of the reference answer; None if not measured.
        blank_image_loss: The same with grey images.
    """

    category: str
    reference: str
    correct: bool
    blank_image_correct: bool | None = None
    loss: float | None = None
    blank_image_loss: float | None = None


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """Scores of one checkpoint in one category, or in `all`. Shares are between 0 and 1.

    Attributes:
        category: Name of the category, or `all`.
        n_questions: Questions asked.
        n_correct: Correct answers among them.
        accuracy: Share correct.
        stderr: Standard error of the accuracy; None for a single question.
        majority_baseline: Accuracy of always giving the most frequent reference. In `all`, both baselines are
            means over the questions, each by its own category.
        random_baseline: Accuracy of guessing among the distinct references.
        n_with_images: Questions that have images.
        with_image_accuracy: Share correct of the questions with images.
        blank_image_accuracy: Share correct of the same questions over grey images.
        loss: Mean loss over the questions where both losses were measured.
        blank_image_loss: The same with grey images.
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
    """Return one score per category, by name, and `all` last; none without answers."""
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
    answers_with_images = [answer for answer in scored_answers if answer.blank_image_correct is not None]
    answers_with_losses = [
        answer for answer in scored_answers if answer.loss is not None and answer.blank_image_loss is not None
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
        with_image_accuracy=_compute_mean(float(answer.correct) for answer in answers_with_images),
        blank_image_accuracy=_compute_mean(float(bool(answer.blank_image_correct)) for answer in answers_with_images),
        loss=_compute_mean(answer.loss or 0.0 for answer in answers_with_losses),
        blank_image_loss=_compute_mean(answer.blank_image_loss or 0.0 for answer in answers_with_losses),
    )


def compute_standard_error(n_correct: int, n_questions: int) -> float | None:
    """Return the standard error of a share from the sample variance of its outcomes; None for fewer than two."""
    if n_questions < 2:
        return None
    accuracy = n_correct / n_questions
    return math.sqrt(accuracy * (1 - accuracy) / (n_questions - 1))


def _compute_mean(values: Iterable[float]) -> float | None:
    value_list = list(values)
    return sum(value_list) / len(value_list) if value_list else None
