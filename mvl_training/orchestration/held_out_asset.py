"""The asset `evaluation/held_out`."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration.metadata import (
    build_partition_check,
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_in_dialog,
)
from mvl_assets.stages import EVALUATION
from mvl_training.evaluation.held_out import suite
from mvl_training.evaluation.held_out.evaluate import evaluate_checkpoints
from mvl_training.evaluation.held_out.local_worker import ModelAnswer
from mvl_training.evaluation.held_out.questions import DEFAULT_MAX_NEW_TOKENS, QUESTIONS_PER_CATEGORY
from mvl_training.evaluation.scoring import CategoryScore
from mvl_training.orchestration.asset_defaults import GPU_POOL, OWNERS, build_export_key, open_lake
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.report import render_category_table, render_preview_table, render_summary_table
from mvl_training.runs.training_run import load_current_checkpoint

# Increased by hand when the meaning of the code changes.
EVALUATION_CODE_VERSION = "3"
BASELINE_CHECK = "better_than_most_frequent_answer"


class HeldOutConfig(dg.Config):
    """Questions of each category, and the limit of an answer in tokens."""

    per_category: int = QUESTIONS_PER_CATEGORY
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS


def build_held_out_asset(stages: Sequence[TrainingStage]) -> dg.AssetsDefinition:
    """Return the asset `evaluation/held_out` of the checkpoints of `stages`, in the order of training."""
    key = dg.AssetKey([EVALUATION.name, "held_out"])

    @dg.asset(
        key=key,
        group_name=EVALUATION.name,
        description="Accuracy of every training stage's checkpoint on held-out questions with reference answers,"
        " compared with chance and with the same questions over grey images. The last checkpoint answers through its"
        " server.",
        deps=[build_export_key(stage) for stage in stages],
        kinds={"lance", "vllm"},
        owners=OWNERS,
        tags={metadata_keys.SUITE: "held_out"},
        pool=GPU_POOL,
        code_version=EVALUATION_CODE_VERSION,
        check_specs=build_held_out_checks(key),
    )
    def held_out(context: dg.AssetExecutionContext, launcher: Launcher, config: HeldOutConfig) -> dg.MaterializeResult:
        lake = open_lake()
        report = evaluate_checkpoints(
            lake,
            [load_current_checkpoint(stage) for stage in stages],
            per_category=config.per_category,
            max_new_tokens=config.max_new_tokens,
            run_id=context.run_id,
            launch=lambda command, folder: launcher.run(context, command, run_dir=folder),
            log=context.log.info,
        )
        answers_by_stage: dict[str, Mapping[str, ModelAnswer]] = {
            checkpoint_answers.checkpoint.name: checkpoint_answers.answers
            for checkpoint_answers in report.answers_of_checkpoints
        }
        table = lake.get_table(suite.TABLE)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata={
                **build_table_metadata(table, rows=table.count()),
                **_build_score_metadata(report),
                metadata_keys.SCORES: render_in_dialog(render_summary_table(report)),
                metadata_keys.SCORES_BY_CATEGORY: render_in_dialog(render_category_table(report.scores)),
                metadata_keys.PREVIEW: render_in_dialog(render_preview_table(lake, report.questions, answers_by_stage)),
            },
            check_results=build_held_out_results(key, lake, report.scores[stages[-1]][-1]),
        )

    return held_out


def build_held_out_checks(
    key: dg.AssetKey, partitions: dg.PartitionsDefinition | None = None
) -> list[dg.AssetCheckSpec]:
    """Return the checks of an asset that asks held-out questions: its rows, and its score against the baseline."""
    description = "The last checkpoint that was asked answers better than always giving the most frequent answer."
    return [
        build_schema_check(key, partitions),
        build_partition_check(key, BASELINE_CHECK, partitions, description),
    ]


def build_held_out_results(key: dg.AssetKey, lake: Lake, total_score: CategoryScore) -> list[dg.AssetCheckResult]:
    """Return the results of `build_held_out_checks` for the score of the last checkpoint over all categories."""
    return [
        build_schema_result(key, lake.get_table(suite.TABLE)),
        dg.AssetCheckResult(
            asset_key=key,
            check_name=BASELINE_CHECK,
            passed=total_score.accuracy > total_score.majority_baseline,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                metadata_keys.ACCURACY: total_score.accuracy,
                metadata_keys.MAJORITY_BASELINE: total_score.majority_baseline,
            },
        ),
    ]


def _build_score_metadata(report: suite.HeldOutReport) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        metadata_keys.QUESTIONS: len(report.questions),
        metadata_keys.SETTINGS_HASH: report.settings_hash,
    }
    for stage, scores in report.scores.items():
        total_score = scores[-1]
        metadata[f"{metadata_keys.ACCURACY}_{stage}"] = total_score.accuracy
        if total_score.blank_image_accuracy is not None:
            metadata[f"{metadata_keys.BLANK_IMAGE_ACCURACY}_{stage}"] = total_score.blank_image_accuracy
    metadata[metadata_keys.MAJORITY_BASELINE] = next(iter(report.scores.values()))[-1].majority_baseline
    return metadata
