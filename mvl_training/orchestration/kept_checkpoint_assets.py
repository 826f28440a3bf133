"""The assets `evaluation/kept_checkpoints_<stage>`: held-out accuracy of checkpoints kept while a stage was trained.

A partition is a kept checkpoint, named like its folder. `checkpoint/<stage>_export` registers them; one is evaluated
when somebody asks for it, so `mvl run` leaves them out and none counts as missing.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.orchestration.metadata import build_table_metadata, render_in_dialog
from mvl_assets.stages import EVALUATION
from mvl_training.evaluation.held_out import suite
from mvl_training.evaluation.held_out.evaluate import evaluate_kept_checkpoint
from mvl_training.orchestration.asset_defaults import GPU_POOL, OWNERS, build_export_key, open_lake
from mvl_training.orchestration.held_out_asset import (
    EVALUATION_CODE_VERSION,
    HeldOutConfig,
    build_held_out_checks,
    build_held_out_results,
)
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.report import render_category_table, render_summary_table
from mvl_training.runs.training_run import (
    Checkpoint,
    list_kept_checkpoints,
    load_kept_checkpoint,
)


def build_kept_checkpoints_asset(stage: TrainingStage) -> dg.AssetsDefinition:
    """Return the asset `evaluation/kept_checkpoints_<stage>`."""
    key = dg.AssetKey([EVALUATION.name, f"kept_checkpoints_{stage}"])
    partitions = _build_partitions(stage)

    @dg.asset(
        key=key,
        group_name=EVALUATION.name,
        description="Accuracy on held-out questions of the checkpoints that were kept while the stage was trained, for"
        " curves over steps. A partition is a kept checkpoint, evaluated on request only, by this project's code."
        " `mvl compare` compares it with any other by its version.",
        deps=[build_export_key(stage)],
        partitions_def=partitions,
        kinds={"lance", "pytorch"},
        owners=OWNERS,
        tags={metadata_keys.SUITE: suite.SUITE, metadata_keys.STAGE: stage},
        pool=GPU_POOL,
        code_version=EVALUATION_CODE_VERSION,
        check_specs=build_held_out_checks(key, partitions),
    )
    def kept_checkpoints(
        context: dg.AssetExecutionContext, launcher: Launcher, config: HeldOutConfig
    ) -> dg.MaterializeResult:
        lake = open_lake()
        checkpoint = load_kept_checkpoint(stage, context.partition_key)
        report = evaluate_kept_checkpoint(
            lake,
            checkpoint,
            per_category=config.per_category,
            max_new_tokens=config.max_new_tokens,
            run_id=context.run_id,
            launch=lambda command, folder: launcher.run(context, command, run_dir=folder),
        )
        total_score = report.scores[checkpoint.name][-1]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata={
                **build_table_metadata(lake.get_table(suite.TABLE), rows=len(report.questions)),
                metadata_keys.STEPS: checkpoint.step,
                metadata_keys.QUESTIONS: total_score.n_questions,
                metadata_keys.ACCURACY: total_score.accuracy,
                metadata_keys.MAJORITY_BASELINE: total_score.majority_baseline,
                metadata_keys.SETTINGS_HASH: report.settings_hash,
                metadata_keys.CHECKPOINT: f"{checkpoint.name} {checkpoint.version}",
                metadata_keys.SCORES: render_in_dialog(render_summary_table(report)),
                metadata_keys.SCORES_BY_CATEGORY: render_in_dialog(render_category_table(report.scores)),
            },
            check_results=build_held_out_results(key, lake, total_score),
        )

    return kept_checkpoints


def register_kept_checkpoints(instance: dg.DagsterInstance, checkpoint: Checkpoint) -> None:
    """Make the partitions of the stage those checkpoints that were kept on the way to `checkpoint`."""
    partitions = _build_partitions(checkpoint.stage)
    name = str(partitions.name)
    kept_names = [kept.weights_dir.name for kept in list_kept_checkpoints(checkpoint)]
    for gone in set(instance.get_dynamic_partitions(name)) - set(kept_names):
        instance.delete_dynamic_partition(name, gone)
    instance.add_dynamic_partitions(name, kept_names)


def _build_partitions(stage: TrainingStage) -> dg.DynamicPartitionsDefinition:
    return dg.DynamicPartitionsDefinition(name=f"kept_checkpoints_{stage}")
