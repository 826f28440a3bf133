"""The four steps of an arm: mixtures, pack plans, checkpoints, evaluations, by the pipeline's own functions.

Each works inside `use_arm`, by which the pipeline's functions read and write the arm's tables. What it made is recorded
last, so a step that was killed is simply run again; training resumes from its own checkpoints, and weights that another
arm has trained with the same rows and settings are reused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np

from mvl_assets.common.arm_address import ArmId
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.catalog import list_all_categories
from mvl_assets.config.profile import Profile
from mvl_assets.config.settings import load_settings
from mvl_assets.config.study_arms import use_arm
from mvl_assets.curation.mixing import build_mixture
from mvl_assets.errors import MvlError
from mvl_assets.execution.create import create_executor
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.candidate_tables import SourceGroups
from mvl_assets.orchestration.asset_keys import list_category_groups
from mvl_training.data.pack_materializer import is_materialized, materialize_packs
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.evaluation.benchmarks.benchmark_run import BenchmarkSettings, run_benchmark
from mvl_training.evaluation.benchmarks.registry import load_suites
from mvl_training.evaluation.clean_subset import record_touched_items
from mvl_training.evaluation.held_out import suite as held_out
from mvl_training.evaluation.held_out.evaluate import run_local_worker, select_profile_questions
from mvl_training.evaluation.held_out.questions import DEFAULT_MAX_NEW_TOKENS
from mvl_training.recipe import Recipe
from mvl_training.runs import training_run
from mvl_training.runs.process_group import LaunchFn
from mvl_training.runs.training_run import Checkpoint
from mvl_training.studies.arms import ResolvedArm, write_arm
from mvl_training.studies.record import ArmState, load_state, save_state
from mvl_training.studies.study import HELD_OUT, Study
from mvl_training.trainer.run_files import EXPORT_REPORT_FILE

StepName = Literal["mixture", "pack_plan", "checkpoint", "evaluation"]
STEP_NAMES: tuple[StepName, ...] = ("mixture", "pack_plan", "checkpoint", "evaluation")


@contextmanager
def _record_step(arm_id: ArmId, step: StepName) -> Iterator[tuple[Lake, ArmState]]:
    """Give the arm's lake and its state with the settings of the arm, and save the state if all went well."""
    started_at, state = time.monotonic(), load_state(arm_id)
    for outdated in STEP_NAMES[STEP_NAMES.index(step) :]:
        getattr(state, outdated).clear()
    with use_arm(arm_id):
        yield Lake(load_settings().lake_root), state
    state.run_times[step] = round(time.monotonic() - started_at, 1)
    save_state(arm_id, state)


def list_source_groups(study: Study, profile: Profile) -> SourceGroups:
    """Return the sources that mixtures of a study may take, by category, with their groups."""
    groups = list_category_groups(list_all_categories(), profile)
    if not study.rewritten_sources_only:
        return groups
    return {
        category: {source: group for source, group in sources.items() if group == "B"}
        for category, sources in groups.items()
    }


def make_mixtures(study: Study, arm: ResolvedArm, *, run_id: str) -> ArmState:
    """Publish the mixtures of an arm."""
    groups = list_source_groups(study, arm.profile)
    with _record_step(arm.arm_id, "mixture") as (lake, state):
        for stage in arm.stages:
            report = build_mixture(
                lake, arm.profile, stage, run_id=run_id, groups=groups, keep_condition=arm.keep_condition
            )
            state.mixture[stage] = report.published.data_version
    return state


def make_plans(study: Study, arm: ResolvedArm, *, run_id: str, launch: LaunchFn) -> ArmState:
    """Plan the stages of an arm, and write large mixtures in the order of training, as the pipeline does.

    Raises:
        MvlError: A mixture has fewer target tokens than the budget.
    """
    write_arm(arm)
    with _record_step(arm.arm_id, "pack_plan") as (lake, state):
        for stage in arm.stages:
            plan_dir = training_run.get_plan_dir(stage)
            report_path = plan_dir / "report.json"
            launch(training_run.build_plan_command(stage, lake.address, run_id, report_path), plan_dir)
            state.pack_plan[stage] = training_run.read_json(report_path)["data_version"]
            if is_materialized(lake, stage, arm.profile.materialize_packs):
                materialize_packs(
                    lake,
                    stage,
                    create_executor(arm.profile.executor),
                    frame_limits=FrameLimits.for_stage(arm.recipe, stage),
                    run_id=run_id,
                )
        write_arm(_apply_token_budget(study, arm, lake))
    return state


def _apply_token_budget(study: Study, arm: ResolvedArm, lake: Lake) -> ResolvedArm:
    """Return the arm with the steps after which each stage has trained on its target tokens."""
    stages = dict(arm.recipe.stages)
    for stage, n_tokens in study.budget.target_tokens.items():
        totals = np.cumsum(PackPlan(lake, stage).counts.n_loss_tokens, dtype=np.int64)
        if totals[-1] < n_tokens:
            raise MvlError(
                f"study {study.name}, arm {arm.arm_id.arm}: mixture/{stage} has {totals[-1]:,} target tokens, and the"
                f" budget is {n_tokens:,}",
                hint=f"lower the budget, or raise mixture.{stage}",
            )
        n_samples = int(np.searchsorted(totals, n_tokens)) + 1
        config = stages[stage]
        stages[stage] = config.model_copy(update={"steps": -(-n_samples // config.global_batch_size)})
    recipe: Recipe = arm.recipe.model_copy(update={"stages": stages})
    return replace(arm, recipe=recipe)


def train_arm(arm: ResolvedArm, *, launch: LaunchFn, log: Callable[[str], None]) -> ArmState:
    """Train the stages of an arm, each from the one before.

    Raises:
        MvlError: A loss is not finite, or an export does not give the logits of the trained model.
    """
    with _record_step(arm.arm_id, "checkpoint") as (lake, state):
        for stage in arm.stages:
            run = training_run.resolve_training_run(lake, stage)
            if run.is_finished:
                log(f"{stage}: already trained with the same rows and settings: {run.output_dir}")
            else:
                launch(run.build_command(), run.output_dir)
            if not run.is_exported:
                launch(run.build_export_command(), run.export_run_dir)
            _validate_training(run)
            checkpoint = run.build_checkpoint()
            training_run.set_current_checkpoint(checkpoint)
            state.checkpoint[stage] = checkpoint.version
    return state


def _validate_training(run: training_run.TrainingRun) -> None:
    metrics = training_run.read_stage_metrics(run.output_dir)
    if not all(training_run.has_finite_values(line) for line in metrics):
        raise MvlError(f"training of {run.stage}: the loss is not finite", hint=f"see {run.output_dir}/metrics.jsonl")
    if not run.read_export_report().is_usable:
        raise MvlError(
            f"training of {run.stage}: the export gives other logits than the trained model",
            hint=f"see {run.output_dir}/{EXPORT_REPORT_FILE}",
        )


def evaluate_arm(
    study: Study, arm: ResolvedArm, *, run_id: str, launch: LaunchFn, log: Callable[[str], None]
) -> ArmState:
    """Ask the last checkpoint of an arm the questions of all suites, by this project's own code."""
    with _record_step(arm.arm_id, "evaluation") as (lake, state):
        checkpoint = training_run.load_current_checkpoint(arm.stages[-1])
        for suite in study.suites:
            log(f"{suite}: asking {checkpoint.stage} {checkpoint.version[:8]}")
            if suite == HELD_OUT:
                _evaluate_held_out(study, lake, checkpoint, run_id, launch)
            else:
                for benchmark in load_suites()[suite].benchmarks:
                    run_benchmark(
                        lake,
                        checkpoint,
                        suite,
                        benchmark,
                        benchmark_settings=BenchmarkSettings(backend="local", protocol=study.protocol),
                        run_id=run_id,
                        launch=launch,
                    )
            state.evaluation[suite] = checkpoint.version
        record_touched_items(lake, checkpoint, arm.profile.contamination, run_id=run_id)
    return state


def _evaluate_held_out(study: Study, lake: Lake, checkpoint: Checkpoint, run_id: str, launch: LaunchFn) -> None:
    questions = select_profile_questions(lake, study.questions_per_category)
    held_out.require_questions(questions)
    answers = run_local_worker(
        lake, questions, [(checkpoint, "all")], max_new_tokens=DEFAULT_MAX_NEW_TOKENS, launch=launch
    )
    held_out.publish_report(
        lake,
        questions,
        [held_out.CheckpointAnswers(checkpoint, "local", answers[checkpoint.stage])],
        max_new_tokens=DEFAULT_MAX_NEW_TOKENS,
        run_id=run_id,
    )


def is_step_done(study: Study, arm: ResolvedArm, step: StepName) -> bool:
    """Return whether a step was done and what it made is as it was then."""
    state = load_state(arm.arm_id)
    with use_arm(arm.arm_id):
        lake = Lake(load_settings().lake_root)
        if step in ("mixture", "pack_plan"):
            versions: dict[str, str] = getattr(state, step)
            return list(versions) == arm.stages and all(
                lake.get_table(f"{step}/{stage}").compute_data_version() == version
                for stage, version in versions.items()
            )
        checkpoints = _load_checkpoints(arm.stages)
        if list(state.checkpoint) != arm.stages or state.checkpoint != checkpoints:
            return False
        return step == "checkpoint" or state.evaluation == dict.fromkeys(study.suites, checkpoints[arm.stages[-1]])


def _load_checkpoints(stages: Sequence[TrainingStage]) -> dict[str, str]:
    """Return the versions of the current checkpoints of stages that have one."""
    versions: dict[str, str] = {}
    for stage in stages:
        try:
            versions[stage] = training_run.load_current_checkpoint(stage).version
        except training_run.StageError:
            break
    return versions
