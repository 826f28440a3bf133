"""The code location `mvl_training`: pack plans, checkpoints and scores as assets.

Belongs here: asset declarations and how results look in the UI. Does not: stage logic (`stages`, `evaluation`), and
anything that imports torch or transformers: that runs in processes which `Launcher` starts.
Concepts: https://docs.dagster.io/guides/build/assets and https://docs.dagster.io/guides/build/external-pipelines
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from mvl_assets.common.digest import digest_hex
from mvl_assets.errors import MvlError
from mvl_training.evaluation.held_out.questions import MAX_NEW_TOKENS, PER_CATEGORY
from mvl_training.orchestration.benchmark_assets import benchmark_suites
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.table_metadata import table_metadata
from mvl_training.recipe import STAGES, TRAIN_CODE, Recipe, StageName

if TYPE_CHECKING:
    from mvl_training.evaluation.held_out.suite import Report
    from mvl_training.runs.stage_run import Checkpoint, StageRun

OWNERS = ["team:training"]
POOL = "gpu-train"
CHECKS = {
    "loss_fell": "The loss is lower at the end than at the start; blocks when it is higher beyond noise.",
    "loss_is_finite": "No step had a loss or gradient norm that is not a number.",
    "export_reloads": "The exported folder, loaded again, gives the logits of the trained model.",
}

# Raised by hand when the meaning of the code changes; data-like inputs are hashed beside it.
PLAN_CODE, EVALUATION_CODE = "2", "2"

ABOUT: Mapping[str, str] = {
    "alignment": "Stage 1: the projector alone learns to put pictures into the language tower's space.",
    "single_image": "Stage 2: everything learns from single-picture and text conversations.",
    "one_vision": "Stage 3: everything goes on with single pictures, several pictures and videos.",
}


def pack_plan(stage: StageName, recipe: Recipe) -> dg.AssetsDefinition:
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
        code_version=_version(PLAN_CODE, recipe.plan_inputs(stage)),
    )
    def plan(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        from mvl_assets.config.settings import settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.runs import stage_run

        lake = Lake(settings().lake_root)
        folder = stage_run.plan_folder(stage)
        out = folder / "report.json"
        launcher.run(context, stage_run.plan_command(stage, lake.root, context.run_id, out), folder=folder)
        report = stage_run.read_json(out)
        metadata = {**table_metadata(lake.table(f"pack_plan/{stage}")), **_plan_metadata(report)}
        return dg.MaterializeResult(data_version=dg.DataVersion(report["data_version"]), metadata=metadata)

    return plan


def checkpoint(stage: StageName, recipe: Recipe) -> dg.AssetsDefinition:
    """The asset `checkpoint/<stage>` with its blocking checks."""
    from mvl_training.runs.stage_run import previous_stage

    before = previous_stage(stage)
    key = dg.AssetKey(["checkpoint", stage])

    @dg.asset(
        key=key,
        group_name="checkpoint",
        description=f"{ABOUT[stage]} Trained by DeepSpeed in processes of their own; interrupted work goes on at its"
        " last step, and finished work with the same recipe, plan and initial weights is found instead of done again.",
        deps=[dg.AssetKey(["pack_plan", stage]), *([dg.AssetKey(["checkpoint", before])] if before else [])],
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=text, blocking=True) for name, text in CHECKS.items()
        ],
        kinds={"deepspeed", "pytorch"},
        owners=OWNERS,
        tags={"mvl/stage": stage},
        pool=POOL,
        code_version=_version(TRAIN_CODE, recipe.training_inputs(stage)),
    )
    def train(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        from mvl_assets.config.settings import settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.runs import stage_run

        run = stage_run.stage_run(Lake(settings().lake_root), stage)
        if run.finished:
            context.log.info(f"found finished with the same inputs: {run.folder}")
        else:
            launcher.run(context, run.command(), folder=run.folder)
        made = run.checkpoint()
        stage_run.set_current(made)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(made.version),
            metadata={**_checkpoint_metadata(run), "preview": _preview(context, launcher, made)},
            check_results=_checks(run),
        )

    return train


class HeldOut(dg.Config):
    """How many questions of each category are asked, and how long an answer may be (in tokens)."""

    per_category: int = PER_CATEGORY
    max_new_tokens: int = MAX_NEW_TOKENS


def evaluation_held_out() -> dg.AssetsDefinition:
    """The asset `evaluation/held_out`."""

    @dg.asset(
        key=["evaluation", "held_out"],
        group_name="evaluation",
        description="Questions with known answers that no mixture may take, asked of every stage's checkpoint (the last"
        " one through its server where there is one picture at most): share correct, beside what chance and a grey"
        " picture in place of the true one give.",
        deps=[dg.AssetKey(["checkpoint", stage]) for stage in STAGES],
        kinds={"lance", "vllm"},
        owners=OWNERS,
        tags={"mvl/suite": "held_out"},
        pool=POOL,
        code_version=EVALUATION_CODE,
    )
    def held_out(context: dg.AssetExecutionContext, launcher: Launcher, config: HeldOut) -> dg.MaterializeResult:
        from mvl_assets.config.settings import settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.evaluation.held_out import evaluate, suite
        from mvl_training.orchestration import report
        from mvl_training.runs import stage_run

        lake = Lake(settings().lake_root)
        found = evaluate.evaluate(
            lake,
            [stage_run.current_checkpoint(stage) for stage in STAGES],
            per_category=config.per_category,
            max_new_tokens=config.max_new_tokens,
            run_id=context.run_id,
            launch=lambda command, folder: launcher.run(context, command, folder=folder),
            log=context.log.info,
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.data_version),
            metadata={
                **table_metadata(lake.table(suite.TABLE)),
                **_score_metadata(found),
                "scores": dg.MarkdownMetadataValue(report.summary_table(found)),
                "by category": dg.MarkdownMetadataValue(report.category_table(found.scores)),
                "preview": dg.MarkdownMetadataValue(
                    report.preview_table(lake, found.questions, {a.checkpoint.stage: a.answers for a in found.askings})
                ),
            },
        )

    return held_out


def _version(code: str, inputs: Mapping[str, Any]) -> str:
    return f"{code}-{digest_hex('inputs', inputs)[:12]}"


def _plan_metadata(report: Mapping[str, Any]) -> dict[str, Any]:
    from mvl_training.data.mixture_stats import loads_table, shares_table

    rejected = "\n".join(f"| {reason} | {rows} |" for reason, rows in report["rejected"].items())
    return {
        "samples": report["samples"],
        "packs": report["packs"],
        "fill": report["fill"],
        "tokens": report["tokens"],
        "target tokens": report["targets"],
        "tiles": report["tiles"],
        "straggler efficiency": report["loads"][0]["tokens"],
        "load of ranks": dg.MarkdownMetadataValue(loads_table(report["loads"])),
        "balance": dg.MarkdownMetadataValue(shares_table(report["shares"])),
        **{f"visual share of a pack, {name}": share for name, share in report["visual_share"].items()},
        "rejected rows": sum(report["rejected"].values()),
        "rejected": dg.MarkdownMetadataValue(f"| reason | rows |\n|---|---|\n{rejected}" if rejected else "none"),
        "seconds": report["seconds"],
    }


def _checkpoint_metadata(run: "StageRun") -> dict[str, Any]:
    from mvl_training.orchestration import plots
    from mvl_training.runs import stage_run

    result = run.result()
    metrics = stage_run.curve(run.folder)
    fall = stage_run.fall_of([line["loss"] for line in metrics])
    return {
        "dagster/row_count": result["samples"],
        "dagster/uri": str(run.folder / "export"),
        "curves": dg.MarkdownMetadataValue(plots.embedded(plots.curves(metrics, run.stage), "loss and learning rate")),
        "loss first": fall.first,
        "loss last": fall.last,
        "steps": result["steps"],
        "target tokens": result["targets"],
        "target tokens per second": result["target_tokens_per_second"],
        "seconds": result["seconds"],
        "resumed from": str(result["resumed_from"]),
        "recipe": run.recipe_name,
        "recipe hash": result["recipe_hash"],
        "settings": dg.JsonMetadataValue(run.recipe.training_inputs(run.stage)),
        "pack plan": run.plan_version,
        "initial weights": "the recipe's towers" if run.initial is None else run.initial.version,
        "versions": dg.JsonMetadataValue(result["versions"]),
    }


def _checks(run: "StageRun") -> list[dg.AssetCheckResult]:
    from mvl_training.runs import stage_run

    result, metrics = run.result(), stage_run.curve(run.folder)
    fall = stage_run.fall_of([line["loss"] for line in metrics])
    unfinite = [line["step"] for line in metrics if not stage_run.is_finite(line)]
    return [
        dg.AssetCheckResult(
            check_name="loss_fell",
            passed=fall.fell,
            # A flat curve of a few steps is worth a look; only a rise beyond noise must not be built on.
            severity=dg.AssetCheckSeverity.ERROR if fall.rose else dg.AssetCheckSeverity.WARN,
            metadata={"first": fall.first, "last": fall.last, "noise": fall.noise, "steps": len(metrics)},
        ),
        dg.AssetCheckResult(
            check_name="loss_is_finite",
            passed=not unfinite,
            metadata={"steps": len(metrics), "steps not finite": str(unfinite[:20])},
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


def _preview(context: dg.AssetExecutionContext, launcher: Launcher, made: "Checkpoint") -> dg.MarkdownMetadataValue:
    from mvl_assets.config.settings import settings
    from mvl_assets.lake.lake import Lake
    from mvl_training.evaluation.held_out import evaluate
    from mvl_training.orchestration import report

    lake = Lake(settings().lake_root)
    questions = evaluate.preview_questions(lake)
    try:
        answers = evaluate.ask_here(
            lake,
            questions,
            [(made, "all")],
            max_new_tokens=MAX_NEW_TOKENS,
            launch=lambda command, folder: launcher.run(context, command, folder=folder),
        )
    except MvlError as error:
        # The weights are good and were paid for; that nobody could ask them is worth a line, not the run.
        return dg.MarkdownMetadataValue(f"*not asked: {error.message}*")
    return dg.MarkdownMetadataValue(report.preview_table(lake, questions, {made.stage: answers[made.stage]}))


def _score_metadata(found: "Report") -> dict[str, Any]:
    numbers: dict[str, Any] = {"questions": len(found.questions), "settings hash": found.settings_hash}
    for stage, scores in found.scores.items():
        total = scores[-1]
        numbers[f"accuracy {stage}"] = total.accuracy
        if total.blank is not None:
            numbers[f"accuracy over grey {stage}"] = total.blank
    numbers["accuracy of the most frequent answer"] = next(iter(found.scores.values()))[-1].majority
    return numbers


@dg.definitions
def defs() -> dg.Definitions:
    from mvl_training.runs.stage_run import current_recipe

    _, recipe = current_recipe()
    return dg.Definitions(
        assets=[
            *(pack_plan(stage, recipe) for stage in STAGES),
            *(checkpoint(stage, recipe) for stage in STAGES),
            evaluation_held_out(),
            *benchmark_suites(owners=OWNERS, pool=POOL),
        ],
        resources={"launcher": Launcher()},
        # Steps are few and fat, and wait for the processes they launch: a process per step would only cost imports.
        executor=dg.in_process_executor,
    )
