"""Brings questions to checkpoints: the earlier stages on this machine, the last one through its server.

Belongs here: who is asked how, and what is already answered. Does not: starting processes (`launch`, handed in by the
caller), sending requests (`served`), scoring (`cross_validated`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.held_out import local_worker, server_client, suite
from mvl_training.evaluation.held_out.questions import PREVIEW_COUNT, QUESTIONS_PER_CATEGORY, HeldOutQuestion
from mvl_training.runs.stage_run import Checkpoint

LaunchFn = Callable[[Sequence[str], Path], None]
LOCAL_WORKER_MODULE = "mvl_training.evaluation.held_out.local_worker"

# Below a checkpoint's folder: what it said, and the log of asking it.
HELD_OUT_DIR = "held_out"


def select_profile_questions(lake: Lake, per_category: int) -> list[HeldOutQuestion]:
    """Held-out questions over the categories and with the share of the profile in use."""
    profile = load_profile(load_settings().profile)
    return suite.select_held_out_questions(
        lake, list(profile.mixture.shares), profile.holdout_fraction, per_category=per_category
    )


def select_preview_questions(lake: Lake) -> list[HeldOutQuestion]:
    """A few questions with pictures, one of a category; the suite asks them too, unless it is made smaller."""
    by_category: dict[str, HeldOutQuestion] = {}
    for question in select_profile_questions(lake, QUESTIONS_PER_CATEGORY):
        if question.image_ids:
            by_category.setdefault(question.category, question)
    return list(by_category.values())[:PREVIEW_COUNT]


def run_local_worker(
    lake: Lake,
    questions: Sequence[HeldOutQuestion],
    checkpoints: Sequence[tuple[Checkpoint, local_worker.AnswerScope]],
    *,
    max_new_tokens: int,
    launch: LaunchFn,
) -> dict[str, Mapping[str, local_worker.ModelAnswer]]:
    """Asks checkpoints by the local runner, in one launched process, and returns what each stage's said.

    Beside a checkpoint stands what it shall answer; all are measured on all true answers. Answers are kept in the
    checkpoint's folder: nothing is asked twice, and nothing is launched when all is known.
    """
    tasks = [
        local_worker.CheckpointTask(
            checkpoint.export_dir, _build_answers_path(checkpoint, answer_scope, max_new_tokens), answer_scope
        )
        for checkpoint, answer_scope in checkpoints
    ]
    question_ids = {question.question_id for question in questions}
    pending = [task for task in tasks if question_ids - local_worker.read_answers(task.answers_path).keys()]
    if pending:
        folder = checkpoints[-1][0].output_dir / HELD_OUT_DIR
        job_file = folder / "job.json"
        local_worker.write_job(
            job_file, lake=lake.root, questions=questions, tasks=pending, max_new_tokens=max_new_tokens
        )
        launch([sys.executable, "-m", LOCAL_WORKER_MODULE, str(job_file)], folder)
    return {
        one.stage: local_worker.read_answers(task.answers_path)
        for (one, _), task in zip(checkpoints, tasks, strict=True)
    }


def evaluate_checkpoints(
    lake: Lake,
    checkpoints: Sequence[Checkpoint],
    *,
    per_category: int,
    max_new_tokens: int,
    run_id: str,
    launch: LaunchFn,
    log: Callable[[str], None],
) -> suite.HeldOutReport:
    """Asks the suite of all `checkpoints` (in order of stages) and publishes the scores. The last one answers through
    its server, but for questions with several pictures (`local_worker.has_multiple_images`).

    Raises `NoHeldOutQuestionsError` before anything is launched, and what asking raises.
    """
    questions = select_profile_questions(lake, per_category)
    suite.require_questions(questions)
    *earlier, last = checkpoints
    log(f"asking {len(questions)} questions of {len(earlier)} checkpoints here and of {last.stage} through its server")
    # It takes a minute to load: meanwhile the others are asked.
    server_questions = [question for question in questions if not local_worker.has_multiple_images(question)]
    server_client.start_server(lake, last, server_questions, max_new_tokens=max_new_tokens)
    local_answers = run_local_worker(
        lake,
        questions,
        [*((checkpoint, "all") for checkpoint in earlier), (last, "several")],
        max_new_tokens=max_new_tokens,
        launch=launch,
    )
    server_answers = server_client.request_answers(
        lake, last, server_questions, max_new_tokens=max_new_tokens, run_id=run_id, log=log
    )
    last_local_answers = local_answers[last.stage]
    last_answers = dict(last_local_answers) | {
        question_id: dataclasses.replace(
            answer,
            loss=last_local_answers[question_id].loss,
            blank_image_loss=last_local_answers[question_id].blank_image_loss,
        )
        for question_id, answer in server_answers.items()
    }
    all_checkpoint_answers = [suite.CheckpointAnswers(one, "runner", local_answers[one.stage]) for one in earlier]
    all_checkpoint_answers.append(suite.CheckpointAnswers(last, "server", last_answers))
    return suite.publish_report(lake, questions, all_checkpoint_answers, max_new_tokens=max_new_tokens, run_id=run_id)


def _build_answers_path(checkpoint: Checkpoint, answer_scope: local_worker.AnswerScope, max_new_tokens: int) -> Path:
    return checkpoint.output_dir / HELD_OUT_DIR / f"{answer_scope}-{max_new_tokens}.jsonl"
