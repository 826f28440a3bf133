"""The code location `mvl_training`: pack plans, checkpoints and scores as assets.

Belongs here: asset declarations and how results look in the UI. Does not: stage logic (`stages`, `evaluation`), and
anything that imports torch or transformers: that runs in processes which `Launcher` starts.
Concepts: https://docs.dagster.io/guides/build/assets and https://docs.dagster.io/guides/build/external-pipelines
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TRAINING_STAGES, TrainingStage
from mvl_assets.errors import MvlError
from mvl_training.evaluation.held_out.questions import DEFAULT_MAX_NEW_TOKENS, QUESTIONS_PER_CATEGORY
from mvl_training.orchestration.benchmark_assets import build_benchmark_assets
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.table_metadata import build_table_metadata
from mvl_training.recipe import TRAIN_CODE_VERSION, Recipe

if TYPE_CHECKING:
    from mvl_training.evaluation.held_out.suite import HeldOutReport
    from mvl_training.runs.stage_run import Checkpoint, StageRun

OWNERS = ["team:training"]
GPU_POOL = "gpu-train"
CHECK_DESCRIPTIONS = {
    "loss_fell": "The loss is lower at the end than at the start; blocks when it is higher beyond noise.",
    "loss_is_finite": "No step had a loss or gradient norm that is not a number.",
    "export_reloads": "The exported folder, loaded again, gives the logits of the trained model.",
}

# Raised by hand when the meaning of the code changes; data-like inputs are hashed beside it.
PLAN_CODE_VERSION, EVALUATION_CODE_VERSION = "2", "2"

STAGE_DESCRIPTIONS: Mapping[str, str] = {
    "alignment": "Stage 1: the projector alone learns to put pictures into the language tower's space.",
    "single_image": "Stage 2: everything learns from single-picture and text conversations.",
    "one_vision": "Stage 3: everything goes on with single pictures, several pictures and videos.",
}


def build_pack_plan_asset(stage: TrainingStage, recipe: Recipe) -> dg.AssetsDefinition:
    """The asset `pack_plan/<stage>`."""

    @dg.asset(
        key=["pack_plan", stage],
        group_name="pack_plan",
        description=f"Which rows of the {stage} mixture share a sequence, from exact token and tile counts; no sample"
        " attends to another, none is cut. Training reads packs in this order, so a step number names its samples.",
        deps=[dg.AssetKey(["mixture", stage])],
        kinds={"lance"},
        owners=OWNERS,
        tags={"mvl/stage": stage},
        code_version=_build_code_version(PLAN_CODE_VERSION, recipe.build_plan_inputs(stage)),
    )
    def plan(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        from mvl_assets.config.settings import load_settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.runs import stage_run

        lake = Lake(load_settings().lake_root)
        plan_dir = stage_run.get_plan_dir(stage)
        report_path = plan_dir / "report.json"
        launcher.run(
            context, stage_run.build_plan_command(stage, lake.root, context.run_id, report_path), run_dir=plan_dir
        )
        report = stage_run.read_json(report_path)
        metadata = {**build_table_metadata(lake.get_table(f"pack_plan/{stage}")), **_build_plan_metadata(report)}
        return dg.MaterializeResult(data_version=dg.DataVersion(report["data_version"]), metadata=metadata)

    return plan


def build_checkpoint_asset(stage: TrainingStage, recipe: Recipe) -> dg.AssetsDefinition:
    """The asset `checkpoint/<stage>` with its blocking checks."""
    from mvl_training.runs.stage_run import get_previous_stage

    previous = get_previous_stage(stage)
    asset_key = dg.AssetKey(["checkpoint", stage])

    @dg.asset(
        key=asset_key,
        group_name="checkpoint",
        description=f"{STAGE_DESCRIPTIONS[stage]} Trained by DeepSpeed in processes of their own; interrupted work goes on at its"
        " last step, and finished work with the same recipe, plan and initial weights is found instead of done again.",
        deps=[dg.AssetKey(["pack_plan", stage]), *([dg.AssetKey(["checkpoint", previous])] if previous else [])],
        check_specs=[
            dg.AssetCheckSpec(name, asset=asset_key, description=description, blocking=True)
            for name, description in CHECK_DESCRIPTIONS.items()
        ],
        kinds={"deepspeed", "pytorch"},
        owners=OWNERS,
        tags={"mvl/stage": stage},
        pool=GPU_POOL,
        code_version=_build_code_version(TRAIN_CODE_VERSION, recipe.build_training_inputs(stage)),
    )
    def train(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        from mvl_assets.config.settings import load_settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.runs import stage_run

        run = stage_run.resolve_stage_run(Lake(load_settings().lake_root), stage)
        if run.is_finished:
            context.log.info(f"found finished with the same inputs: {run.output_dir}")
        else:
            launcher.run(context, run.build_command(), run_dir=run.output_dir)
        stage_checkpoint = run.build_checkpoint()
        stage_run.set_current_checkpoint(stage_checkpoint)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(stage_checkpoint.version),
            metadata={
                **_build_checkpoint_metadata(run),
                "preview": _build_preview(context, launcher, stage_checkpoint),
            },
            check_results=_build_check_results(run),
        )

    return train


class HeldOutConfig(dg.Config):
    """How many questions of each category are asked, and how long an answer may be (in tokens)."""

    per_category: int = QUESTIONS_PER_CATEGORY
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS


def build_held_out_asset() -> dg.AssetsDefinition:
    """The asset `evaluation/held_out`."""

    @dg.asset(
        key=["evaluation", "held_out"],
        group_name="evaluation",
        description="Questions with known answers that no mixture may take, asked of every stage's checkpoint (the last"
        " one through its server where there is one picture at most): share correct, beside what chance and a grey"
        " picture in place of the true one give.",
        deps=[dg.AssetKey(["checkpoint", stage]) for stage in TRAINING_STAGES],
        kinds={"lance", "vllm"},
        owners=OWNERS,
        tags={"mvl/suite": "held_out"},
        pool=GPU_POOL,
        code_version=EVALUATION_CODE_VERSION,
    )
    def held_out(context: dg.AssetExecutionContext, launcher: Launcher, config: HeldOutConfig) -> dg.MaterializeResult:
        from mvl_assets.config.settings import load_settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.evaluation.held_out import evaluate, suite
        from mvl_training.orchestration import report
        from mvl_training.runs import stage_run

        lake = Lake(load_settings().lake_root)
        held_out_report = evaluate.evaluate_checkpoints(
            lake,
            [stage_run.load_current_checkpoint(stage) for stage in TRAINING_STAGES],
            per_category=config.per_category,
            max_new_tokens=config.max_new_tokens,
            run_id=context.run_id,
            launch=lambda command, folder: launcher.run(context, command, run_dir=folder),
            log=context.log.info,
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(held_out_report.data_version),
            metadata={
                **build_table_metadata(lake.get_table(suite.TABLE)),
                **_build_score_metadata(held_out_report),
                "scores": dg.MarkdownMetadataValue(report.render_summary_table(held_out_report)),
                "by category": dg.MarkdownMetadataValue(report.render_category_table(held_out_report.scores)),
                "preview": dg.MarkdownMetadataValue(
                    report.render_preview_table(
                        lake,
                        held_out_report.questions,
                        {
                            checkpoint_answers.checkpoint.stage: checkpoint_answers.answers
                            for checkpoint_answers in held_out_report.answers_of_checkpoints
                        },
                    )
                ),
            },
        )

    return held_out


def _build_code_version(code_version: str, inputs: Mapping[str, Any]) -> str:
    return f"{code_version}-{compute_digest('inputs', inputs)[:12]}"


def _build_plan_metadata(report: Mapping[str, Any]) -> dict[str, Any]:
    from mvl_training.data.mixture_stats import render_loads_table, render_shares_table

    reject_lines = "\n".join(f"| {reason} | {rows} |" for reason, rows in report["rejects_by_error"].items())
    return {
        "samples": report["n_samples"],
        "packs": report["n_packs"],
        "fill": report["fill_ratio"],
        "tokens": report["n_tokens"],
        "target tokens": report["n_loss_tokens"],
        "tiles": report["n_tiles"],
        "straggler efficiency": report["rank_loads"][0]["token_efficiency"],
        "load of ranks": dg.MarkdownMetadataValue(render_loads_table(report["rank_loads"])),
        "balance": dg.MarkdownMetadataValue(render_shares_table(report["shares"])),
        **{f"visual share of a pack, {name}": share for name, share in report["visual_share_percentiles"].items()},
        "rejected rows": sum(report["rejects_by_error"].values()),
        "rejected": dg.MarkdownMetadataValue(
            f"| reason | rows |\n|---|---|\n{reject_lines}" if reject_lines else "none"
        ),
        "seconds": report["duration_s"],
    }


def _build_checkpoint_metadata(run: "StageRun") -> dict[str, Any]:
    from mvl_training.orchestration import plots
    from mvl_training.runs import stage_run

    result = run.read_result()
    metrics = stage_run.read_stage_metrics(run.output_dir)
    trend = stage_run.compute_loss_trend([line["loss"] for line in metrics])
    return {
        "dagster/row_count": result["samples"],
        "dagster/uri": str(run.export_dir),
        "curves": dg.MarkdownMetadataValue(
            plots.embed_image(plots.plot_training_curves(metrics, run.stage), "loss and learning rate")
        ),
        "loss first": trend.first_mean,
        "loss last": trend.last_mean,
        "steps": result["n_steps"],
        "target tokens": result["loss_tokens"],
        "target tokens per second": result["loss_tokens_per_s"],
        "seconds": result["train_time_s"],
        "resumed from": str(result["resumed_from"]),
        "recipe": run.recipe_name,
        "recipe hash": result["recipe_hash"],
        "settings": dg.JsonMetadataValue(run.recipe.build_training_inputs(run.stage)),
        "pack plan": run.plan_version,
        "initial weights": "the recipe's towers" if run.initial_checkpoint is None else run.initial_checkpoint.version,
        "versions": dg.JsonMetadataValue(result["versions"]),
    }


def _build_check_results(run: "StageRun") -> list[dg.AssetCheckResult]:
    from mvl_training.runs import stage_run

    result, metrics = run.read_result(), stage_run.read_stage_metrics(run.output_dir)
    trend = stage_run.compute_loss_trend([line["loss"] for line in metrics])
    non_finite_steps = [line["step"] for line in metrics if not stage_run.has_finite_values(line)]
    return [
        dg.AssetCheckResult(
            check_name="loss_fell",
            passed=trend.has_fallen,
            # A flat curve of a few steps is worth a look; only a rise beyond noise must not be built on.
            severity=dg.AssetCheckSeverity.ERROR if trend.has_risen else dg.AssetCheckSeverity.WARN,
            metadata={
                "first": trend.first_mean,
                "last": trend.last_mean,
                "noise": trend.standard_error,
                "steps": len(metrics),
            },
        ),
        dg.AssetCheckResult(
            check_name="loss_is_finite",
            passed=not non_finite_steps,
            metadata={"steps": len(metrics), "steps not finite": str(non_finite_steps[:20])},
        ),
        dg.AssetCheckResult(
            check_name="export_reloads",
            passed=result["export_max_difference"] <= stage_run.EXPORT_TOLERANCE,
            metadata={
                "largest difference of a logit": result["export_max_difference"],
                "tolerance": stage_run.EXPORT_TOLERANCE,
            },
        ),
    ]


def _build_preview(
    context: dg.AssetExecutionContext, launcher: Launcher, stage_checkpoint: "Checkpoint"
) -> dg.MarkdownMetadataValue:
    from mvl_assets.config.settings import load_settings
    from mvl_assets.lake.lake import Lake
    from mvl_training.evaluation.held_out import evaluate
    from mvl_training.orchestration import report

    lake = Lake(load_settings().lake_root)
    questions = evaluate.select_preview_questions(lake)
    try:
        answers = evaluate.run_local_worker(
            lake,
            questions,
            [(stage_checkpoint, "all")],
            max_new_tokens=DEFAULT_MAX_NEW_TOKENS,
            launch=lambda command, folder: launcher.run(context, command, run_dir=folder),
        )
    except MvlError as error:
        # The weights are good and were paid for; that nobody could ask them is worth a line, not the run.
        return dg.MarkdownMetadataValue(f"*not asked: {error.message}*")
    return dg.MarkdownMetadataValue(
        report.render_preview_table(lake, questions, {stage_checkpoint.stage: answers[stage_checkpoint.stage]})
    )


def _build_score_metadata(held_out_report: "HeldOutReport") -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "questions": len(held_out_report.questions),
        "settings hash": held_out_report.settings_hash,
    }
    for stage, scores in held_out_report.scores.items():
        total_score = scores[-1]
        metadata[f"accuracy {stage}"] = total_score.accuracy
        if total_score.blank_image_accuracy is not None:
            metadata[f"accuracy over grey {stage}"] = total_score.blank_image_accuracy
    metadata["accuracy of the most frequent answer"] = next(iter(held_out_report.scores.values()))[-1].majority_baseline
    return metadata


@dg.definitions
def defs() -> dg.Definitions:
    from mvl_training.runs.stage_run import load_current_recipe

    _, recipe = load_current_recipe()
    return dg.Definitions(
        assets=[
            *(build_pack_plan_asset(stage, recipe) for stage in TRAINING_STAGES),
            *(build_checkpoint_asset(stage, recipe) for stage in TRAINING_STAGES),
            build_held_out_asset(),
            *build_benchmark_assets(owners=OWNERS, pool=GPU_POOL),
        ],
        resources={"launcher": Launcher()},
        # Steps are few and fat, and wait for the processes they launch: a process per step would only cost imports.
        executor=dg.in_process_executor,
    )
