"""What a person sees of a checkpoint or of scores: markdown for the UI, without Dagster.

Belongs here: tables and previews. Does not: numbers themselves (`stages`, `evaluation.scoring`), curves (`plots`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import PictureError, thumbnail
from mvl_training.evaluation.held_out.local_worker import Asked
from mvl_training.evaluation.held_out.questions import PREVIEWED, Question
from mvl_training.evaluation.held_out.suite import Report
from mvl_training.evaluation.scoring import ALL, Score, is_correct
from mvl_training.orchestration.plots import embedded


def summary_table(report: Report) -> str:
    """One line per checkpoint over all categories."""
    lines = [
        "| checkpoint | asked via | correct | accuracy | most frequent answer | guessing | with pictures"
        " | same, grey | loss | loss, grey |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for asking in report.askings:
        stage = asking.checkpoint.stage
        total = next(one for one in report.scores[stage] if one.category == ALL)
        lines.append(
            f"| {stage} | {asking.via} | {total.correct} of {total.questions} | {_accuracy(total)}"
            f" | {_percent(total.majority)} | {_percent(total.uniform)} | {_percent(total.sighted)}"
            f" | {_percent(total.blank)} | {_number(total.loss)} | {_number(total.blank_loss)} |"
        )
    return "\n".join(lines)


def category_table(scores: Mapping[str, Sequence[Score]]) -> str:
    """Accuracy per category (lines) and checkpoint (columns), beside chance."""
    stages = list(scores)
    by_category = {one.category: one for listed in scores.values() for one in listed}
    lines = [
        f"| category | questions | {' | '.join(stages)} | most frequent answer | guessing |",
        "|---" * (len(stages) + 4) + "|",
    ]
    for category, any_score in by_category.items():
        cells = [_accuracy(one) for stage in stages for one in scores[stage] if one.category == category]
        lines.append(
            f"| {category} | {any_score.questions} | {' | '.join(cells)}"
            f" | {_percent(any_score.majority)} | {_percent(any_score.uniform)} |"
        )
    return "\n".join(lines)


def preview_table(lake: Lake, questions: Sequence[Question], answers: Mapping[str, Mapping[str, Asked]]) -> str:
    """A few held-out questions with a thumbnail, the known answer, and what each checkpoint (by name) said.

    Questions with one picture come first. At most `PREVIEWED` thumbnails, a few kB each.
    """
    chosen = sorted(questions, key=lambda question: (len(question.image_ids) != 1, question.category))
    spread = _one_per_category_first(chosen)[:PREVIEWED]
    lines = [
        f"| picture | question | known answer | {' | '.join(answers)} |",
        "|---" * (3 + len(answers)) + "|",
    ]
    for question in spread:
        said = [_said(by_id.get(question.question_id), question) for by_id in answers.values()]
        cells = [_picture(lake, question), _cell(question.text), _cell(question.expected), *said]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _one_per_category_first(questions: Sequence[Question]) -> list[Question]:
    seen: set[str] = set()
    first: list[Question] = []
    rest: list[Question] = []
    for question in questions:
        (rest if question.category in seen else first).append(question)
        seen.add(question.category)
    return first + rest


def _picture(lake: Lake, question: Question) -> str:
    if not question.image_ids:
        return "–"
    try:
        (data,) = lake.images.fetch(question.image_ids[:1]).values()
        more = f" +{len(question.image_ids) - 1}" if len(question.image_ids) > 1 else ""
        return embedded(thumbnail(data), question.category, "image/jpeg") + more
    except PictureError as error:
        return f"*{error.error}*"


def _said(asked: Asked | None, question: Question) -> str:
    if asked is None or asked.answer is None:
        return "*not asked*"
    mark = "✓ " if is_correct(asked.answer, question.expected) else ""
    return mark + (_cell(asked.answer) or "*empty*")


_UNBROKEN = re.compile(r"\S{40}")


def _cell(text: str, longest: int = 160) -> str:
    """Text as one markdown cell: what would end the cell or read as markup is shown as it is."""
    flat = " ".join(text.split())
    short = flat if len(flat) <= longest else f"{flat[: longest - 1]}…"
    # A model that repeats itself without a space would push the other columns out of sight.
    short = _UNBROKEN.sub(lambda run: f"{run[0]}\u200b", short)
    for mark in "\\`*_<>[]|":
        short = short.replace(mark, f"\\{mark}")
    return short


def _accuracy(one: Score) -> str:
    return f"{_percent(one.accuracy)}" + ("" if one.stderr is None else f" ± {100 * one.stderr:.1f}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
