"""Brings questions to checkpoints: the earlier stages on this machine, the last one through its server.

Belongs here: who is asked how, and what is already answered. Does not: starting processes (`launch`, handed in by the
caller), sending requests (`served`), scoring (`held_out`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import settings
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.held_out import local_worker, server_client, suite
from mvl_training.evaluation.held_out.questions import PER_CATEGORY, PREVIEWED, Question
from mvl_training.runs.stage_run import Checkpoint

Launch = Callable[[Sequence[str], Path], None]
LOCAL_MODULE = "mvl_training.evaluation.held_out.local_worker"

# Below a checkpoint's folder: what it said, and the log of asking it.
HELD_OUT = "held_out"


def questions_of_profile(lake: Lake, per_category: int) -> list[Question]:
    """Held-out questions over the categories and with the share of the profile in use."""
    profile = load_profile(settings().profile)
    return suite.held_out_questions(lake, list(profile.mixture.shares), profile.holdout, per_category=per_category)


def preview_questions(lake: Lake) -> list[Question]:
    """A few questions with pictures, one of a category; the suite asks them too, unless it is made smaller."""
    found: dict[str, Question] = {}
    for question in questions_of_profile(lake, PER_CATEGORY):
        if question.image_ids:
            found.setdefault(question.category, question)
    return list(found.values())[:PREVIEWED]


def ask_here(
    lake: Lake,
    questions: Sequence[Question],
    checkpoints: Sequence[tuple[Checkpoint, local_worker.Answers]],
    *,
    max_new_tokens: int,
    launch: Launch,
) -> dict[str, Mapping[str, local_worker.Asked]]:
    """Asks checkpoints by the local runner, in one launched process, and returns what each stage's said.

    Beside a checkpoint stands what it shall answer; all are measured on all true answers. Answers are kept in the
    checkpoint's folder: nothing is asked twice, and nothing is launched when all is known.
    """
    tasks = [
        local_worker.Task(one.export, _answers_file(one, answers, max_new_tokens), answers)
        for one, answers in checkpoints
    ]
    wanted = {question.question_id for question in questions}
    pending = [task for task in tasks if wanted - local_worker.asked(task.out).keys()]
    if pending:
        folder = checkpoints[-1][0].folder / HELD_OUT
        job = folder / "job.json"
        local_worker.write_job(job, lake=lake.root, questions=questions, tasks=pending, max_new_tokens=max_new_tokens)
        launch([sys.executable, "-m", LOCAL_MODULE, str(job)], folder)
    return {one.stage: local_worker.asked(task.out) for (one, _), task in zip(checkpoints, tasks, strict=True)}


def evaluate(
    lake: Lake,
    checkpoints: Sequence[Checkpoint],
    *,
    per_category: int,
    max_new_tokens: int,
    run_id: str,
    launch: Launch,
    log: Callable[[str], None],
) -> suite.Report:
    """Asks the suite of all `checkpoints` (in order of stages) and publishes the scores. The last one answers through
    its server, but for questions with several pictures (`local.has_several`).

    Raises `NothingHeldOut` before anything is launched, and what asking raises.
    """
    questions = questions_of_profile(lake, per_category)
    suite.require(questions)
    *earlier, last = checkpoints
    log(f"asking {len(questions)} questions of {len(earlier)} checkpoints here and of {last.stage} through its server")
    # It takes a minute to load: meanwhile the others are asked.
    for_server = [question for question in questions if not local_worker.has_several(question)]
    server_client.start(lake, last, for_server, max_new_tokens=max_new_tokens)
    known = ask_here(
        lake,
        questions,
        [*((one, "all") for one in earlier), (last, "several")],
        max_new_tokens=max_new_tokens,
        launch=launch,
    )
    said = server_client.ask(lake, last, for_server, max_new_tokens=max_new_tokens, run_id=run_id, log=log)
    measured = known[last.stage]
    merged = dict(measured) | {
        key: dataclasses.replace(answer, loss=measured[key].loss, blank_loss=measured[key].blank_loss)
        for key, answer in said.items()
    }
    askings = [suite.Asking(one, "runner", known[one.stage]) for one in earlier]
    askings.append(suite.Asking(last, "server", merged))
    return suite.publish(lake, questions, askings, max_new_tokens=max_new_tokens, run_id=run_id)


def _answers_file(checkpoint: Checkpoint, answers: local_worker.Answers, max_new_tokens: int) -> Path:
    return checkpoint.folder / HELD_OUT / f"{answers}-{max_new_tokens}.jsonl"
