"""The assets `checkpoint/<training stage>_export`: weights in Hugging Face form, compared with the trained model.

An asset of its own, so that no rank of a training on many GPUs waits while one process reads, converts and checks the
weights. Everything after it (the next stage, evaluations) reads what it leaves.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import CHECKPOINT
from mvl_training.evaluation.held_out.evaluate import export_and_ask, select_preview_questions
from mvl_training.evaluation.held_out.local_worker import ModelAnswer
from mvl_training.evaluation.held_out.suite import remove_earlier_scores
from mvl_training.orchestration.asset_defaults import GPU_POOL, OWNERS, build_export_key, open_lake
from mvl_training.orchestration.kept_checkpoint_assets import register_kept_checkpoints
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.report import render_preview_table
from mvl_training.runs import training_run
from mvl_training.trainer.export_report import EXPORT_CODE_VERSION, ExportReport

EXPORT_CHECK = "export_reloads"


def build_export_asset(stage: TrainingStage) -> dg.AssetsDefinition:
    """Return the asset `checkpoint/<stage>_export`."""
    key = build_export_key(stage)

    @dg.asset(
        key=key,
        group_name=CHECKPOINT.name,
        description="The weights of the stage in Hugging Face form: the next stage starts from them, and transformers"
        " and vLLM load them. An export that is there already is kept.",
        deps=[dg.AssetKey([CHECKPOINT.name, stage])],
        check_specs=[
            dg.AssetCheckSpec(
                EXPORT_CHECK,
                asset=key,
                description="The exported folder, loaded again, gives the logits of the trained model.",
                blocking=True,
            )
        ],
        kinds={"pytorch", "huggingface"},
        owners=OWNERS,
        tags={metadata_keys.STAGE: stage},
        pool=GPU_POOL,
        code_version=EXPORT_CODE_VERSION,
    )
    def checkpoint_export(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        lake = open_lake()
        run = training_run.resolve_training_run(lake, stage)
        checkpoint = run.build_checkpoint()
        preview = _export_and_preview(context, launcher, lake, run)
        report = run.read_export_report()
        if report.is_usable:
            training_run.set_current_checkpoint(checkpoint)
            register_kept_checkpoints(context.instance, checkpoint)
            remove_earlier_scores(lake, checkpoint)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(checkpoint.version),
            metadata={
                metadata_keys.URI: str(checkpoint.export_dir),
                metadata_keys.MAX_LOGIT_DIFFERENCE: report.max_difference,
                metadata_keys.PREVIEW: dg.MarkdownMetadataValue(preview),
            },
            check_results=[_build_export_result(report)],
        )

    return checkpoint_export


def _build_export_result(report: ExportReport) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=EXPORT_CHECK,
        passed=report.is_within_tolerance,
        # Kernels of another device than that of the training round otherwise: a difference is then only a warning.
        severity=dg.AssetCheckSeverity.ERROR if report.is_conclusive else dg.AssetCheckSeverity.WARN,
        metadata={
            metadata_keys.MAX_LOGIT_DIFFERENCE: report.max_difference,
            metadata_keys.TOLERANCE: report.tolerance,
            metadata_keys.DEVICES: f"trained on {report.trained_on}, compared on {report.measured_on}",
        },
    )


def _export_and_preview(
    context: dg.AssetExecutionContext, launcher: Launcher, lake: Lake, run: training_run.TrainingRun
) -> str:
    """Export the stage and return what it answers to a few held-out questions, as a table."""
    questions = select_preview_questions(lake)
    try:
        answers: dict[str, ModelAnswer] = export_and_ask(
            lake,
            run,
            questions,
            launch=lambda command, folder: launcher.run(context, command, run_dir=folder),
        )
    except MvlError as error:
        if not run.is_exported:
            raise
        # The weights are good and were expensive: a failed preview is a line on the page, not a failed run.
        return f"*not asked: {error.message}*"
    return render_preview_table(lake, questions, {run.stage: answers})
