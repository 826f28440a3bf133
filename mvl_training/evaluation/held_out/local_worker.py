"""Asks checkpoints on this machine: `python -m mvl_training.evaluation.held_out.local_worker JOB.json`, a launched process.

Belongs here: the file protocol between the step that wants answers and the process that has the model. Does not: the
model (`mvl_training.evaluation.runner`, imported only when there is something to ask) and scoring.

One process asks several checkpoints one after the other, so that torch is imported once. Answers are appended as they
come: a process that was killed goes on where it stopped, and what is answered is never asked again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import build_blank_image
from mvl_training.evaluation.held_out.questions import HeldOutQuestion

BATCH_SIZE = 8

AnswerScope = Literal["all", "several"]
"""`several`: those to questions with several pictures."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What one checkpoint said to one question. The `blank_` fields are None for a question without pictures, the
    answers None where only losses were wanted."""

    question_id: str
    answer: str | None
    blank_image_answer: str | None
    loss: float | None
    blank_image_loss: float | None


@dataclass(frozen=True, slots=True)
class CheckpointTask:
    """One checkpoint to ask: its export folder, the file for its answers, and which questions it is to answer; on the
    others it is only measured (their answers come from a server)."""

    export: Path
    answers_path: Path
    answer_scope: AnswerScope


def write_job(
    file: Path, *, lake: str, questions: Sequence[HeldOutQuestion], tasks: Sequence[CheckpointTask], max_new_tokens: int
) -> None:
    """Puts down what `python -m mvl_training.evaluation.held_out.local_worker FILE` shall do."""
    job = {
        "lake": lake,
        "max_new_tokens": max_new_tokens,
        "questions": [question.to_dict() for question in questions],
        "tasks": [
            {"export": str(task.export), "out": str(task.answers_path), "answers": task.answer_scope} for task in tasks
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")


def read_answers(answers_path: Path) -> dict[str, ModelAnswer]:
    """What a checkpoint has said so far, by question id. A line torn by a kill does not count."""
    answers_by_question: dict[str, ModelAnswer] = {}
    if answers_path.exists():
        for line in answers_path.read_text(encoding="utf-8").splitlines():
            try:
                model_answer = ModelAnswer(**json.loads(line))
            except (ValueError, TypeError):
                continue
            answers_by_question[model_answer.question_id] = model_answer
    return answers_by_question


def answer_questions(
    lake: Lake, runner: Any, questions: Sequence[HeldOutQuestion], *, answer_scope: AnswerScope
) -> Iterator[ModelAnswer]:
    """Asks `runner` (a `mvl_training.evaluation.runner.Runner`) in batches: each question with its pictures, then over grey."""
    for start in range(0, len(questions), BATCH_SIZE):
        batch = questions[start : start + BATCH_SIZE]
        image_bytes = lake.images.read_images({i for question in batch for i in question.image_ids})
        images = [[image_bytes[i] for i in question.image_ids] for question in batch]
        # A question without pictures is asked once: over grey it would be the same question.
        image_positions = [index for index, question in enumerate(batch) if question.image_ids]
        blank_images = [[build_blank_image(data) for data in images[index]] for index in image_positions]
        answer_positions = [
            i for i, question in enumerate(batch) if answer_scope == "all" or has_multiple_images(question)
        ]
        answers_by_position = _index_by_position(
            _generate_answers(runner, batch, [images[i] for i in answer_positions], answer_positions), answer_positions
        )
        blank_image_positions = [i for i in answer_positions if i in image_positions]
        blank_image_answers = _index_by_position(
            _generate_answers(
                runner,
                batch,
                [blank_images[image_positions.index(i)] for i in blank_image_positions],
                blank_image_positions,
            ),
            blank_image_positions,
        )
        losses_by_position = _index_by_position(
            _compute_losses(runner, batch, images, range(len(batch))), range(len(batch))
        )
        blank_image_losses = _index_by_position(
            _compute_losses(runner, batch, blank_images, image_positions), image_positions
        )
        for index, question in enumerate(batch):
            yield ModelAnswer(
                question.question_id,
                answer=answers_by_position.get(index),
                blank_image_answer=blank_image_answers.get(index),
                loss=losses_by_position.get(index),
                blank_image_loss=blank_image_losses.get(index),
            )


def has_multiple_images(question: HeldOutQuestion) -> bool:
    """Whether it shows several pictures. vLLM cuts each of them into tiles of its own; training gives each one tile."""
    return len(question.image_ids) > 1


def _generate_answers(
    runner: Any, batch: Sequence[HeldOutQuestion], images: Sequence[list[bytes]], positions: Sequence[int]
) -> list[str]:
    prompts = [(question_images, batch[index].text) for question_images, index in zip(images, positions, strict=True)]
    return runner.answer(prompts) if prompts else []


def _compute_losses(
    runner: Any, batch: Sequence[HeldOutQuestion], images: Sequence[list[bytes]], positions: Sequence[int]
) -> list[float]:
    samples = [
        (question_images, batch[i].text, batch[i].reference)
        for question_images, i in zip(images, positions, strict=True)
    ]
    return runner.loss(samples) if samples else []


def _index_by_position(values: Sequence[Any], positions: Sequence[int]) -> dict[int, Any]:
    return dict(zip(positions, values, strict=True)) if values else {}


def main(arguments: Sequence[str]) -> int:
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    lake = Lake(job["lake"])
    questions = [HeldOutQuestion.from_data(data) for data in job["questions"]]
    for task in job["tasks"]:
        answers_path = Path(task["out"])
        answers_by_question = read_answers(answers_path)
        pending = [question for question in questions if question.question_id not in answers_by_question]
        if not pending:
            continue
        from mvl_training.evaluation.runner import StudentRunner

        runner = StudentRunner(Path(task["export"]), max_new_tokens=job["max_new_tokens"])
        # Whole lines only, so that an append after a kill does not continue a torn one.
        _write_answers(answers_path, answers_by_question)
        with answers_path.open("a", encoding="utf-8") as file:
            for model_answer in answer_questions(lake, runner, pending, answer_scope=task["answers"]):
                file.write(_format_line(model_answer))
                file.flush()
        sys.stdout.write(f"asked {len(pending)} questions of {task['export']}\n")
    return 0


def _write_answers(answers_path: Path, answers_by_question: dict[str, ModelAnswer]) -> None:
    answers_path.parent.mkdir(parents=True, exist_ok=True)
    temp_file = answers_path.with_suffix(".part")
    temp_file.write_text(
        "".join(_format_line(model_answer) for model_answer in answers_by_question.values()), encoding="utf-8"
    )
    temp_file.replace(answers_path)


def _format_line(model_answer: ModelAnswer) -> str:
    values = {name: getattr(model_answer, name) for name in ModelAnswer.__slots__}
    return json.dumps(values, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except MvlError as error:
        raise SystemExit(str(error)) from None
