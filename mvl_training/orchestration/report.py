"""Markdown tables of questions, answers and scores for the UI."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvl_assets.answer_matching.matching import is_correct
from mvl_assets.common.markdown import embed_image, escape_cell
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import ImageError, build_thumbnail
from mvl_training.evaluation.held_out.local_worker import ModelAnswer
from mvl_training.evaluation.held_out.questions import PREVIEW_COUNT, HeldOutQuestion
from mvl_training.evaluation.held_out.suite import HeldOutReport
from mvl_training.evaluation.lmms.question import PREVIEW_FILE
from mvl_training.evaluation.scoring import ALL_CATEGORIES, CategoryScore
from mvl_training.orchestration.plots import MAX_EMBEDDED_CHARS

# Of a question or an answer in a table.
MAX_TEXT_CHARS = 160


def render_summary_table(report: HeldOutReport) -> str:
    """Return a table of all categories together, with a column per checkpoint, so that it fits a page."""
    columns = []
    for checkpoint_answers in report.answers_of_checkpoints:
        name = checkpoint_answers.checkpoint.name
        total_score = next(score for score in report.scores[name] if score.category == ALL_CATEGORIES)
        columns.append(
            {
                "": name,
                "backend": checkpoint_answers.backend,
                "correct": f"{total_score.n_correct} of {total_score.n_questions}",
                "accuracy": _format_accuracy(total_score),
                "most frequent answer": _format_percent(total_score.majority_baseline),
                "guessing": _format_percent(total_score.random_baseline),
                "with images": _format_percent(total_score.with_image_accuracy),
                "same, grey": _format_percent(total_score.blank_image_accuracy),
                "loss": _format_number(total_score.loss),
                "loss, grey": _format_number(total_score.blank_image_loss),
            }
        )
    lines = [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]]
    return "\n".join([lines[0], "|---" * (len(columns) + 1) + "|", *lines[1:]])


def render_category_table(scores: Mapping[str, Sequence[CategoryScore]]) -> str:
    """Return a table of accuracy by category (lines) and training stage (columns), with chance."""
    stages = list(scores)
    by_category = {score.category: score for stage_scores in scores.values() for score in stage_scores}
    lines = [
        f"| category | questions | {' | '.join(stages)} | most frequent answer | guessing |",
        "|---" * (len(stages) + 4) + "|",
    ]
    for category, any_score in by_category.items():
        cells = [_format_accuracy(score) for stage in stages for score in scores[stage] if score.category == category]
        lines.append(
            f"| {category} | {any_score.n_questions} | {' | '.join(cells)}"
            f" | {_format_percent(any_score.majority_baseline)} | {_format_percent(any_score.random_baseline)} |"
        )
    return "\n".join(lines)


def render_preview_table(
    lake: Lake, questions: Sequence[HeldOutQuestion], answers: Mapping[str, Mapping[str, ModelAnswer]]
) -> str:
    """Return a table of a few held-out questions with a thumbnail, the reference, and each checkpoint's answer.

    Questions with one image come first. There are at most `PREVIEW_COUNT` thumbnails of a few kB each.

    Args:
        lake: The lake with the images.
        questions: Those to choose from.
        answers: By name of the checkpoint, then by question id.
    """
    sorted_questions = sorted(questions, key=lambda question: (len(question.image_ids) != 1, question.category))
    previewed = _order_one_per_category_first(sorted_questions)[:PREVIEW_COUNT]
    lines = [
        f"| image | question | reference | {' | '.join(answers)} |",
        "|---" * (3 + len(answers)) + "|",
    ]
    for question in previewed:
        answer_cells = [_format_answer(by_id.get(question.question_id), question) for by_id in answers.values()]
        cells = [
            _render_image(lake, question),
            escape_cell(question.text, MAX_TEXT_CHARS),
            escape_cell(question.reference, MAX_TEXT_CHARS),
            *answer_cells,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def render_benchmark_preview(folder: Path, answers: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of a benchmark's first questions with a thumbnail, the reference, and the checkpoint's answer.

    Args:
        folder: The folder of the benchmark's run.
        answers: Rows of its answers, at least those of these questions.
    """
    try:
        questions = json.loads((folder / PREVIEW_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "none"
    answers_by_question = {(answer["task"], str(answer["doc_id"])): answer for answer in answers}
    lines = ["| image | question | reference | answer |", "|---|---|---|---|"]
    for question in questions:
        answer = answers_by_question.get((question["task"], str(question["doc_id"])), {})
        mark = "✓ " if answer.get("score") == 1 else ""
        cells = [
            _render_first_image(question),
            escape_cell(question["text"], MAX_TEXT_CHARS),
            escape_cell(answer.get("reference"), MAX_TEXT_CHARS),
            mark + escape_cell(answer.get("answer"), MAX_TEXT_CHARS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _render_first_image(question: Mapping[str, Any]) -> str:
    if question["image"] is None:
        return "video" if question["n_videos"] else "–"
    try:
        thumbnail = build_thumbnail(base64.b64decode(question["image"]))
    except ImageError as error:
        return f"*{error.code}*"
    more_images = f" +{question['n_images'] - 1}" if question["n_images"] > 1 else ""
    max_chars = MAX_EMBEDDED_CHARS // PREVIEW_COUNT
    return embed_image(thumbnail, question["task"], "image/jpeg", max_chars=max_chars) + more_images


def _order_one_per_category_first(questions: Sequence[HeldOutQuestion]) -> list[HeldOutQuestion]:
    seen_categories: set[str] = set()
    first_of_category: list[HeldOutQuestion] = []
    others: list[HeldOutQuestion] = []
    for question in questions:
        (others if question.category in seen_categories else first_of_category).append(question)
        seen_categories.add(question.category)
    return first_of_category + others


def _render_image(lake: Lake, question: HeldOutQuestion) -> str:
    if not question.image_ids:
        return "–"
    try:
        (data,) = lake.images.read_images(question.image_ids[:1]).values()
        more_images = f" +{len(question.image_ids) - 1}" if len(question.image_ids) > 1 else ""
        return (
            embed_image(build_thumbnail(data), question.category, "image/jpeg", max_chars=MAX_EMBEDDED_CHARS)
            + more_images
        )
    except ImageError as error:
        return f"*{error.code}*"


def _format_answer(model_answer: ModelAnswer | None, question: HeldOutQuestion) -> str:
    if model_answer is None or model_answer.answer is None:
        return "*not asked*"
    correct_mark = "✓ " if is_correct(model_answer.answer, question.reference) else ""
    return correct_mark + (escape_cell(model_answer.answer, MAX_TEXT_CHARS) or "*empty*")


def _format_accuracy(score: CategoryScore) -> str:
    return f"{_format_percent(score.accuracy)}" + ("" if score.stderr is None else f" ± {100 * score.stderr:.1f}")


def _format_percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
