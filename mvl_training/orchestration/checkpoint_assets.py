"""The assets `checkpoint/<training stage>` with their blocking checks."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.markdown import embed_image, format_markdown_table
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.orchestration.metadata import render_in_dialog
from mvl_assets.stages import PACKED_ROWS
from mvl_training.orchestration.asset_defaults import GPU_POOL, OWNERS, build_code_version, build_export_key, open_lake
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.plots import MAX_EMBEDDED_CHARS, plot_training_curves
from mvl_training.recipe import TRAIN_CODE_VERSION, Recipe
from mvl_training.runs import training_run
from mvl_training.runs.process_group import CommandFailed
from mvl_training.runs.training_run import TrainingRun

MAX_RETRIES = 2
"""How often a stage is started again after torchrun gave up."""
RETRY_DELAY_S = 30.0
MAX_SKIPPED = 20
MAX_MEASURED = 30
CHECK_DESCRIPTIONS = {
    "loss_fell": "The loss is lower at the end than at the start; blocks if it rose by more than noise.",
    "loss_is_finite": "Loss and gradient norm are finite in every step.",
}

STAGE_DESCRIPTIONS: Mapping[TrainingStage, str] = {
    "alignment": "Training stage 1: the projector alone learns to map images into the language model's space.",
    "single_image": "Training stage 2: all parts learn from single-image and text conversations.",
    "one_vision": "Training stage 3: all parts continue with single images, several images and videos.",
}


def build_checkpoint_asset(stage: TrainingStage, recipe: Recipe) -> dg.AssetsDefinition:
    """Return the asset `checkpoint/<stage>`."""
    previous = recipe.get_previous_stage(stage)
    asset_key = dg.AssetKey(["checkpoint", stage])

    @dg.asset(
        key=asset_key,
        group_name="checkpoint",
        description=f"{STAGE_DESCRIPTIONS[stage]} Trained by DeepSpeed in launched processes. Interrupted training"
        " resumes from its last checkpoint; a finished one with the same recipe, plan and initial weights is reused.",
        deps=[
            dg.AssetKey([PACKED_ROWS.name, stage]),
            *([build_export_key(previous)] if previous else []),
        ],
        check_specs=[
            dg.AssetCheckSpec(name, asset=asset_key, description=description, blocking=True)
            for name, description in CHECK_DESCRIPTIONS.items()
        ],
        kinds={"deepspeed", "pytorch"},
        owners=OWNERS,
        tags={metadata_keys.STAGE: stage},
        pool=GPU_POOL,
        code_version=build_code_version(TRAIN_CODE_VERSION, recipe.build_training_inputs(stage)),
    )
    def checkpoint(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        run = training_run.resolve_training_run(open_lake(), stage)
        if run.is_finished:
            context.log.info(f"already trained with the same inputs: {run.output_dir}")
        else:
            _train(context, launcher, run)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(run.build_checkpoint().version),
            metadata=_build_checkpoint_metadata(run),
            check_results=_build_check_results(run),
        )

    return checkpoint


def _train(context: dg.AssetExecutionContext, launcher: Launcher, run: TrainingRun) -> None:
    """Train; what a lost machine or worker ended goes on from its last checkpoint."""
    try:
        launcher.run(context, run.build_command(), run_dir=run.output_dir)
    except CommandFailed as error:
        if not run.may_retry or context.retry_number >= MAX_RETRIES:
            raise
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=RETRY_DELAY_S) from error


def _build_checkpoint_metadata(run: TrainingRun) -> dict[str, Any]:
    result = run.read_result()
    metrics = training_run.read_stage_metrics(run.output_dir)
    trend = training_run.compute_loss_trend([line["loss"] for line in metrics])
    curves = embed_image(
        plot_training_curves(metrics, run.stage), "loss and learning rate", max_chars=MAX_EMBEDDED_CHARS
    )
    return {
        metadata_keys.ROW_COUNT: result["samples"],
        metadata_keys.URI: result["checkpoint_dir"],
        metadata_keys.CURVES: dg.MarkdownMetadataValue(curves),
        metadata_keys.LOSS_FIRST: trend.first_mean,
        metadata_keys.LOSS_LAST: trend.last_mean,
        metadata_keys.LOSS_BY_CATEGORY: dg.MarkdownMetadataValue(_render_category_losses(metrics)),
        **_build_held_out_metadata(metrics),
        metadata_keys.SAMPLES_SKIPPED: result.get("skipped_samples", 0),
        metadata_keys.SKIPPED: dg.MarkdownMetadataValue(_render_skipped_samples(metrics)),
        metadata_keys.STEPS: result["n_steps"],
        metadata_keys.LOSS_TOKENS: result["loss_tokens"],
        metadata_keys.LOSS_TOKENS_PER_S: result["loss_tokens_per_s"],
        metadata_keys.SECONDS: result["train_time_s"],
        metadata_keys.RESUMED_FROM: str(result["resumed_from"]),
        metadata_keys.RECIPE: run.recipe_name,
        metadata_keys.RECIPE_HASH: result["recipe_hash"],
        metadata_keys.SETTINGS: dg.JsonMetadataValue(run.recipe.build_training_inputs(run.stage)),
        metadata_keys.PACK_PLAN: run.plan_version,
        metadata_keys.INITIAL_WEIGHTS: (
            "the recipe's towers" if run.initial_checkpoint is None else run.initial_checkpoint.version
        ),
        metadata_keys.VERSIONS: dg.JsonMetadataValue(result["versions"]),
    }


def _render_category_losses(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the mean loss per loss token of each category, in the first and last tenth of the steps."""
    width = max(1, len(metrics) // 10)
    categories = sorted({category for line in metrics for category in line.get("loss_by_category", {})})
    return format_markdown_table(
        [
            {
                "category": category,
                "first": _compute_mean_loss(metrics[:width], category),
                "last": _compute_mean_loss(metrics[-width:], category),
            }
            for category in categories
        ]
    )


def _compute_mean_loss(metrics: Sequence[Mapping[str, Any]], category: str) -> float | None:
    losses = [loss for line in metrics if (loss := line.get("loss_by_category", {}).get(category)) is not None]
    return sum(losses) / len(losses) if losses else None


def _build_held_out_metadata(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the last measurement on held-out samples, and a table of all; nothing without any."""
    measured = [line for line in metrics if line.get("held_out_loss") is not None]
    if not measured:
        return {}
    categories = sorted({category for line in measured for category in line["held_out_loss_by_category"]})
    rows = [
        {
            "step": line["step"],
            "loss": line["held_out_loss"],
            **{f"loss {c}": line["held_out_loss_by_category"].get(c) for c in categories},
            "answered": line["held_out_exact"],
        }
        for line in measured[-MAX_MEASURED:]
    ]
    last = measured[-1]
    values = {metadata_keys.HELD_OUT_LOSS: last["held_out_loss"], metadata_keys.HELD_OUT_EXACT: last["held_out_exact"]}
    return {
        **{name: value for name, value in values.items() if value is not None},
        metadata_keys.HELD_OUT: render_in_dialog(format_markdown_table(rows)),
    }


def _render_skipped_samples(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the first samples that were left out because an image of theirs cannot be decoded."""
    skipped = ((line["step"], sample) for line in metrics for sample in line.get("skipped", ()))
    return format_markdown_table(
        [
            {"step": step, "row": sample["row_id"], "source": sample["source"], "error": sample["error"]}
            for step, sample in islice(skipped, MAX_SKIPPED)
        ]
    )


def _build_check_results(run: TrainingRun) -> list[dg.AssetCheckResult]:
    metrics = training_run.read_stage_metrics(run.output_dir)
    trend = training_run.compute_loss_trend([line["loss"] for line in metrics])
    non_finite_steps = [line["step"] for line in metrics if not training_run.has_finite_values(line)]
    return [
        dg.AssetCheckResult(
            check_name="loss_fell",
            passed=trend.has_fallen,
            # A flat curve of a few steps is only a warning; a rise beyond noise blocks later stages.
            severity=dg.AssetCheckSeverity.ERROR if trend.has_risen else dg.AssetCheckSeverity.WARN,
            metadata={
                metadata_keys.LOSS_FIRST: trend.first_mean,
                metadata_keys.LOSS_LAST: trend.last_mean,
                metadata_keys.LOSS_NOISE: trend.standard_error,
                metadata_keys.STEPS: len(metrics),
            },
        ),
        dg.AssetCheckResult(
            check_name="loss_is_finite",
            passed=not non_finite_steps,
            metadata={
                metadata_keys.STEPS: len(metrics),
                metadata_keys.NON_FINITE_STEPS: str(non_finite_steps[:20]),
            },
        ),
    ]
