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
from mvl_assets.media.image import blank_like
from mvl_training.evaluation.held_out.questions import Question

BATCH = 8

Answers = Literal["all", "several"]
"""`several`: those to questions with several pictures."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one checkpoint said to one question. The `blank_` fields are None for a question without pictures, the
    answers None where only losses were wanted."""

    question_id: str
    answer: str | None
    blank_answer: str | None
    loss: float | None
    blank_loss: float | None


@dataclass(frozen=True, slots=True)
class Task:
    """One checkpoint to ask: its export folder, the file for its answers, and which questions it is to answer; on the
    others it is only measured (their answers come from a server)."""

    export: Path
    out: Path
    answers: Answers


def write_job(
    file: Path, *, lake: str, questions: Sequence[Question], tasks: Sequence[Task], max_new_tokens: int
) -> None:
    """Puts down what `python -m mvl_training.evaluation.held_out.local_worker FILE` shall do."""
    job = {
        "lake": lake,
        "max_new_tokens": max_new_tokens,
        "questions": [question.as_data() for question in questions],
        "tasks": [{"export": str(t.export), "out": str(t.out), "answers": t.answers} for t in tasks],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")


def asked(out: Path) -> dict[str, Asked]:
    """What a checkpoint has said so far, by question id. A line torn by a kill does not count."""
    found: dict[str, Asked] = {}
    if out.exists():
        for line in out.read_text(encoding="utf-8").splitlines():
            try:
                row = Asked(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[row.question_id] = row
    return found


def ask(lake: Lake, runner: Any, questions: Sequence[Question], *, answers: Answers) -> Iterator[Asked]:
    """Asks `runner` (a `mvl_training.evaluation.runner.Runner`) in batches: each question with its pictures, then over grey."""
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        pictures = lake.images.fetch({i for question in batch for i in question.image_ids})
        true = [[pictures[i] for i in question.image_ids] for question in batch]
        # A question without pictures is asked once: over grey it would be the same question.
        over = [index for index, question in enumerate(batch) if question.image_ids]
        grey = [[blank_like(data) for data in true[index]] for index in over]
        told = [i for i, question in enumerate(batch) if answers == "all" or has_several(question)]
        said = _spread(_answers(runner, batch, [true[i] for i in told], told), told)
        blank_told = [i for i in told if i in over]
        blank_said = _spread(_answers(runner, batch, [grey[over.index(i)] for i in blank_told], blank_told), blank_told)
        losses = _spread(_losses(runner, batch, true, range(len(batch))), range(len(batch)))
        blank_losses = _spread(_losses(runner, batch, grey, over), over)
        for index, question in enumerate(batch):
            yield Asked(
                question.question_id,
                answer=said.get(index),
                blank_answer=blank_said.get(index),
                loss=losses.get(index),
                blank_loss=blank_losses.get(index),
            )


def has_several(question: Question) -> bool:
    """Whether it shows several pictures. vLLM cuts each of them into tiles of its own; training gives each one tile."""
    return len(question.image_ids) > 1


def _answers(
    runner: Any, batch: Sequence[Question], pictures: Sequence[list[bytes]], which: Sequence[int]
) -> list[str]:
    wanted = [(shown, batch[index].text) for shown, index in zip(pictures, which, strict=True)]
    return runner.answer(wanted) if wanted else []


def _losses(
    runner: Any, batch: Sequence[Question], pictures: Sequence[list[bytes]], which: Sequence[int]
) -> list[float]:
    wanted = [(shown, batch[i].text, batch[i].expected) for shown, i in zip(pictures, which, strict=True)]
    return runner.loss(wanted) if wanted else []


def _spread(values: Sequence[Any], which: Sequence[int]) -> dict[int, Any]:
    return dict(zip(which, values, strict=True)) if values else {}


def main(arguments: Sequence[str]) -> int:
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    lake = Lake(job["lake"])
    questions = [Question.from_data(data) for data in job["questions"]]
    for task in job["tasks"]:
        out = Path(task["out"])
        known = asked(out)
        pending = [question for question in questions if question.question_id not in known]
        if not pending:
            continue
        from mvl_training.evaluation.runner import Runner

        runner = Runner(Path(task["export"]), max_new_tokens=job["max_new_tokens"])
        # Whole lines only, so that an append after a kill does not continue a torn one.
        _rewrite(out, known)
        with out.open("a", encoding="utf-8") as file:
            for row in ask(lake, runner, pending, answers=task["answers"]):
                file.write(_line(row))
                file.flush()
        sys.stdout.write(f"asked {len(pending)} questions of {task['export']}\n")
    return 0


def _rewrite(out: Path, known: dict[str, Asked]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text("".join(_line(row) for row in known.values()), encoding="utf-8")
    part.replace(out)


def _line(row: Asked) -> str:
    values = {name: getattr(row, name) for name in Asked.__slots__}
    return json.dumps(values, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except MvlError as error:
        raise SystemExit(str(error)) from None
