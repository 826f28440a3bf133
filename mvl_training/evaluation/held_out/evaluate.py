"""Evaluation of all checkpoints: the last one through its server, those of earlier stages by the local backend."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.held_out import local_worker, server_client, suite
from mvl_training.evaluation.held_out.questions import (
    DEFAULT_MAX_NEW_TOKENS,
    PREVIEW_COUNT,
    QUESTIONS_PER_CATEGORY,
    HeldOutQuestion,
)
from mvl_training.runs.process_group import LaunchFn
from mvl_training.runs.training_run import LAUNCHER_ENV, Checkpoint, TrainingRun
from mvl_training.trainer.run_files import HELD_OUT_DIR, get_scratch_export_dir

LOCAL_WORKER_MODULE = "mvl_training.evaluation.held_out.local_worker"


def select_profile_questions(lake: Lake, per_category: int) -> list[HeldOutQuestion]:
    """Return held-out questions by the categories and the held-out fraction of the profile in use."""
    profile = load_profile(load_settings().profile)
    return suite.select_held_out_questions(
        lake, list(profile.mixture.shares), profile.holdout_fraction, per_category=per_category
    )


def select_preview_questions(lake: Lake) -> list[HeldOutQuestion]:
    """Return a few questions with images, one per category; all are in the suite of default size."""
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
    stage_to_export: Path | None = None,
) -> dict[str, Mapping[str, local_worker.ModelAnswer]]:
    """Ask checkpoints by the local backend, in one launched process.

    Answers are stored in the checkpoint's folder: only missing ones are asked for, and without any nothing is launched.

    Args:
        lake: The lake with the images.
        questions: Losses of the reference answers are measured for all of them.
        checkpoints: Each with the scope of questions that it answers.
        max_new_tokens: Limit of an answer.
        launch: Runs the worker.
        stage_to_export: Output folder of a trained stage that the process exports first.

    Returns:
        Answers by name of the checkpoint and question id.
    """
    tasks = [
        local_worker.CheckpointTask(
            checkpoint.weights_dir, _build_answers_path(checkpoint, answer_scope, max_new_tokens), answer_scope
        )
        for checkpoint, answer_scope in checkpoints
    ]
    question_ids = {question.question_id for question in questions}
    pending = [task for task in tasks if question_ids - local_worker.read_answers(task.answers_path).keys()]
    if pending or stage_to_export is not None:
        folder = checkpoints[-1][0].output_dir / HELD_OUT_DIR
        job_file = folder / "job.json"
        local_worker.write_job(
            job_file,
            lake_root=lake.root,
            questions=questions,
            tasks=pending,
            max_new_tokens=max_new_tokens,
            stage_to_export=stage_to_export,
        )
        launch([sys.executable, "-m", LOCAL_WORKER_MODULE, str(job_file)], folder)
    return {
        checkpoint.name: local_worker.read_answers(task.answers_path)
        for (checkpoint, _), task in zip(checkpoints, tasks, strict=True)
    }


def export_and_ask(
    lake: Lake, run: TrainingRun, questions: Sequence[HeldOutQuestion], *, launch: LaunchFn
) -> dict[str, local_worker.ModelAnswer]:
    """Export a trained stage and ask it questions; what is there already is kept.

    One launched process does both, unless a launcher trains on other machines: then they export.

    Args:
        lake: The lake with the images.
        run: The trained stage.
        questions: None are asked of an empty sequence.
        launch: Runs the worker.

    Returns:
        Answers by question id.
    """
    checkpoint = run.build_checkpoint()
    if not run.is_exported and LAUNCHER_ENV in os.environ:
        launch(run.build_export_command(), run.export_run_dir)
    answers = run_local_worker(
        lake,
        questions,
        [(checkpoint, "all")],
        max_new_tokens=DEFAULT_MAX_NEW_TOKENS,
        launch=launch,
        stage_to_export=None if run.is_exported else checkpoint.output_dir,
    )
    return dict(answers[checkpoint.name])


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
    """Ask all checkpoints the suite's questions and publish the scores.

    The last checkpoint answers through its server.

    Args:
        lake: The lake with the held-out rows; it gets the scores.
        checkpoints: In order of training stages.
        per_category: Questions of each category, at most.
        max_new_tokens: Limit of an answer.
        run_id: Run that the stored rows name.
        launch: Runs the local backend's worker.
        log: Called with progress messages.

    Raises:
        NoHeldOutQuestionsError: The lake has no questions; raised before anything is launched.
        UnansweredQuestionsError: The server failed to answer some questions.
    """
    questions = select_profile_questions(lake, per_category)
    suite.require_questions(questions)
    *earlier, last = checkpoints
    log(f"asking {len(earlier)} checkpoints locally and {last.stage} through its server: {len(questions)} questions")
    # The server takes a minute to load; meanwhile the other checkpoints are asked.
    server_client.start_server(lake, last, questions, max_new_tokens=max_new_tokens)
    local_answers = run_local_worker(
        lake,
        questions,
        [*((checkpoint, "all") for checkpoint in earlier), (last, "none")],
        max_new_tokens=max_new_tokens,
        launch=launch,
    )
    server_answers = server_client.request_answers(
        lake, last, questions, max_new_tokens=max_new_tokens, run_id=run_id, log=log
    )
    last_local_answers = local_answers[last.stage]
    last_answers = {
        question_id: dataclasses.replace(
            answer,
            loss=last_local_answers[question_id].loss,
            blank_image_loss=last_local_answers[question_id].blank_image_loss,
        )
        for question_id, answer in server_answers.items()
    }
    answers_of_checkpoints = [
        suite.CheckpointAnswers(checkpoint, "local", local_answers[checkpoint.stage]) for checkpoint in earlier
    ]
    answers_of_checkpoints.append(suite.CheckpointAnswers(last, "server", last_answers))
    return suite.publish_report(lake, questions, answers_of_checkpoints, max_new_tokens=max_new_tokens, run_id=run_id)


def evaluate_kept_checkpoint(
    lake: Lake, checkpoint: Checkpoint, *, per_category: int, max_new_tokens: int, run_id: str, launch: LaunchFn
) -> suite.HeldOutReport:
    """Ask a kept checkpoint the suite's questions by the local backend and publish its scores beside the others.

    It is exported for as long as it is asked.

    Args:
        lake: The lake with the held-out rows; it gets the scores.
        checkpoint: One of a step.
        per_category: Questions of each category, at most.
        max_new_tokens: Limit of an answer.
        run_id: Run that the stored rows name.
        launch: Runs the local backend's worker.

    Raises:
        NoHeldOutQuestionsError: The lake has no questions; raised before anything is launched.
    """
    questions = select_profile_questions(lake, per_category)
    suite.require_questions(questions)
    try:
        answers = run_local_worker(lake, questions, [(checkpoint, "all")], max_new_tokens=max_new_tokens, launch=launch)
    finally:
        shutil.rmtree(get_scratch_export_dir(checkpoint.weights_dir), ignore_errors=True)
    checkpoint_answers = suite.CheckpointAnswers(checkpoint, "local", answers[checkpoint.name])
    return suite.publish_report(lake, questions, [checkpoint_answers], max_new_tokens=max_new_tokens, run_id=run_id)


def _build_answers_path(checkpoint: Checkpoint, answer_scope: local_worker.AnswerScope, max_new_tokens: int) -> Path:
    folder = checkpoint.output_dir / HELD_OUT_DIR
    if checkpoint.step is not None:
        folder /= checkpoint.weights_dir.name
    return folder / f"{answer_scope}-{max_new_tokens}.jsonl"
