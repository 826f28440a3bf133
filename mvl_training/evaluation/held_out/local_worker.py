"""Worker process of the local backend: `python -m mvl_training.evaluation.held_out.local_worker JOB.json`.

It loads several checkpoints one after the other, so that torch is imported once, and exports a stage before, where the
job says so. Every answer is appended to a file at once: a worker that was killed resumes where it stopped, and no
answered question is asked again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import build_blank_image
from mvl_training.evaluation.answer_file import iter_answer_lines
from mvl_training.evaluation.held_out.questions import HeldOutQuestion

BATCH_SIZE = 8

AnswerScope = Literal["all", "none"]
"""Which questions a checkpoint answers here."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One checkpoint's answers to one question, and its losses on the reference answer.

    The `blank_image_…` fields are the same with grey images; None for a question without images. Answers are None if
    only losses were measured.
    """

    question_id: str
    answer: str | None
    blank_image_answer: str | None
    loss: float | None
    blank_image_loss: float | None


@dataclass(frozen=True, slots=True)
class CheckpointTask:
    """One checkpoint to ask.

    Attributes:
        weights_dir: Its export folder, or a training checkpoint's.
        answers_path: File for its answers.
        answer_scope: Which questions it answers; of the others only losses are measured, and a server answers them.
    """

    weights_dir: Path
    answers_path: Path
    answer_scope: AnswerScope


def write_job(
    file: Path,
    *,
    lake_root: str,
    questions: Sequence[HeldOutQuestion],
    tasks: Sequence[CheckpointTask],
    max_new_tokens: int,
    stage_to_export: Path | None = None,
) -> None:
    """Write the job file of a worker.

    Args:
        file: Where to write it; its folder is created.
        lake_root: Root of the lake.
        questions: What every checkpoint is asked.
        tasks: One per checkpoint.
        max_new_tokens: Longest answer, in tokens.
        stage_to_export: Output folder of a trained stage that is exported first.
    """
    job = {
        "lake_root": lake_root,
        "stage_to_export": None if stage_to_export is None else str(stage_to_export),
        "max_new_tokens": max_new_tokens,
        "questions": [question.to_dict() for question in questions],
        "tasks": [
            {
                "weights_dir": str(task.weights_dir),
                "answers_path": str(task.answers_path),
                "answer_scope": task.answer_scope,
            }
            for task in tasks
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(file, json.dumps(job, ensure_ascii=False))


def read_answers(answers_path: Path) -> dict[str, ModelAnswer]:
    """Return a checkpoint's answers so far, by question id."""
    fields = set(ModelAnswer.__slots__)
    return {row["question_id"]: ModelAnswer(**row) for row in iter_answer_lines(answers_path) if row.keys() == fields}


def answer_questions(
    lake: Lake, runner: Any, questions: Sequence[HeldOutQuestion], *, answer_scope: AnswerScope
) -> Iterator[ModelAnswer]:
    """Yield the answers to `questions` with their images and with grey ones, asked in batches.

    Args:
        lake: The lake with the images.
        runner: A `StudentRunner`, or anything with its `answer_questions` and `compute_losses`.
        questions: In the order of the answers.
        answer_scope: Which questions are answered; losses are measured for all.
    """
    for start in range(0, len(questions), BATCH_SIZE):
        batch = questions[start : start + BATCH_SIZE]
        image_bytes = lake.images.read_images({i for question in batch for i in question.image_ids})
        images = [[image_bytes[i] for i in question.image_ids] for question in batch]
        # A question without images is asked once: with grey images it would be the same question.
        image_positions = [index for index, question in enumerate(batch) if question.image_ids]
        blank_images = [[build_blank_image(data) for data in images[index]] for index in image_positions]
        answer_positions = list(range(len(batch))) if answer_scope == "all" else []
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


def _generate_answers(
    runner: Any, batch: Sequence[HeldOutQuestion], images: Sequence[list[bytes]], positions: Sequence[int]
) -> list[str]:
    prompts = [(question_images, batch[index].text) for question_images, index in zip(images, positions, strict=True)]
    return runner.answer_questions(prompts) if prompts else []


def _compute_losses(
    runner: Any, batch: Sequence[HeldOutQuestion], images: Sequence[list[bytes]], positions: Sequence[int]
) -> list[float]:
    samples = [
        (question_images, batch[i].text, batch[i].reference)
        for question_images, i in zip(images, positions, strict=True)
    ]
    return runner.compute_losses(samples) if samples else []


def _index_by_position(values: Sequence[Any], positions: Sequence[int]) -> dict[int, Any]:
    return dict(zip(positions, values, strict=True)) if values else {}


def main(arguments: Sequence[str]) -> int:
    """Do what a job file says; return the exit status."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    lake = Lake(job["lake_root"])
    questions = [HeldOutQuestion.from_dict(data) for data in job["questions"]]
    if job["stage_to_export"] is not None:
        from mvl_training.trainer.export_main import export_stage

        export_stage(Path(job["stage_to_export"]))
    for task in job["tasks"]:
        answers_path = Path(task["answers_path"])
        answers_by_question = read_answers(answers_path)
        pending = [question for question in questions if question.question_id not in answers_by_question]
        if not pending:
            continue
        from mvl_training.evaluation.student_runner import StudentRunner

        runner = StudentRunner(Path(task["weights_dir"]), max_new_tokens=job["max_new_tokens"])
        # Rewritten with whole lines only: an append must not continue a line torn by a kill.
        _write_answers(answers_path, answers_by_question)
        with answers_path.open("a", encoding="utf-8") as file:
            for model_answer in answer_questions(lake, runner, pending, answer_scope=task["answer_scope"]):
                file.write(_format_line(model_answer))
                file.flush()
        sys.stdout.write(f"{task['weights_dir']} was asked {len(pending)} questions\n")
    return 0


def _write_answers(answers_path: Path, answers_by_question: dict[str, ModelAnswer]) -> None:
    answers_path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(answers_path, "".join(map(_format_line, answers_by_question.values())))


def _format_line(model_answer: ModelAnswer) -> str:
    values = {name: getattr(model_answer, name) for name in ModelAnswer.__slots__}
    return json.dumps(values, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except MvlError as error:
        raise SystemExit(str(error)) from None
