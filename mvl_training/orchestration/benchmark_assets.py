"""The assets `evaluation/<suite>`, partitioned by benchmark: the paper's 23 in three suites, and the synthetic ones."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from typing import Literal

import dagster as dg
from pydantic import Field

from mvl_assets.common import metadata_keys
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.orchestration.metadata import (
    build_partition_check,
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_in_dialog,
)
from mvl_assets.stages import EVALUATION
from mvl_training.evaluation.benchmarks.benchmark_run import (
    TABLE,
    Backend,
    BenchmarkSettings,
    is_lmms_eval_installed,
    read_benchmark_scores,
    read_first_answers,
    render_score_table,
    run_benchmark,
)
from mvl_training.evaluation.benchmarks.paper_protocol import DEFAULT_PROTOCOL, Protocol
from mvl_training.evaluation.benchmarks.registry import LOCAL_SUITE, Suite, load_suites
from mvl_training.evaluation.clean_subset import (
    CleanScore,
    compute_clean_score,
    record_touched_items,
    render_clean_score,
)
from mvl_training.orchestration.asset_defaults import GPU_POOL, OWNERS, build_export_key, open_lake
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.report import render_benchmark_preview
from mvl_training.runs.training_run import load_current_checkpoint

# Increased by hand when the meaning of the code changes; the declarations are hashed as well.
BENCHMARK_CODE_VERSION = "2"

JUDGED_CHECK = "every_question_judged"


class BenchmarkConfig(dg.Config):
    """The checkpoint to ask, and how.

    Attributes:
        stage: Training stage of the checkpoint; empty takes the recipe's last.
        backend: `local` (this project's code, on every GPU) or `server` (vLLM servers of the checkpoint; no videos of
            students of other families).
        protocol: `default`, or `paper`: frames, prompts and limits of the paper's copy of lmms-eval.
        limit: Ask only the first questions of each task; 0 asks all.
        max_new_tokens: Replaces the tasks' own limits; 0 keeps them.
        base_urls: Servers that are already running, which share the questions.
        model: The model's name there.
    """

    stage: Literal["", "alignment", "single_image", "one_vision"] = ""
    backend: Backend = "local"
    protocol: Protocol = DEFAULT_PROTOCOL
    limit: int = 0
    max_new_tokens: int = 0
    base_urls: list[str] = Field(default_factory=list)
    model: str = ""


def build_benchmark_assets(last_stage: TrainingStage) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return one asset per suite of `benchmarks.yaml`; without lmms-eval they are declared only.

    Args:
        last_stage: The stage whose checkpoint answers unless the run's configuration names another.
    """
    build = _build_suite_asset if is_lmms_eval_installed() else _build_declared_spec
    return [build(name, suite, last_stage) for name, suite in load_suites().items()]


def _build_declared_spec(name: str, suite: Suite, last_stage: TrainingStage) -> dg.AssetSpec:
    """Return the asset of a suite that cannot be run here: "Materialize all" leaves it out, and it is not missing."""
    return dg.AssetSpec(
        dg.AssetKey([EVALUATION.name, name]),
        group_name=EVALUATION.name,
        description=f"{describe_suite(name, suite)} Declared only: lmms-eval is not installed (`make eval-setup`, then"
        " reload the definitions).",
        deps=[build_export_key(last_stage)],
        kinds={"lance", "lmms-eval"},
        owners=OWNERS,
        tags={metadata_keys.SUITE: name},
    )


def describe_suite(name: str, suite: Suite) -> str:
    """Return what the graph says about a suite."""
    reference_note = "" if name == LOCAL_SUITE else " The paper's scores of MAmmoTH-VL-8B are shown for comparison."
    return (
        f"{suite.about} A partition is a benchmark, run by lmms-eval in an environment of its own (`make eval-setup`),"
        f" with standard errors.{reference_note} `mvl compare` compares two checkpoints by question."
    )


def _build_suite_asset(name: str, suite: Suite, last_stage: TrainingStage) -> dg.AssetsDefinition:
    suite_config = {key: definition.model_dump(mode="json") for key, definition in suite.benchmarks.items()}
    key = dg.AssetKey([EVALUATION.name, name])
    partitions = dg.StaticPartitionsDefinition(list(suite.benchmarks))

    @dg.asset(
        key=key,
        group_name=EVALUATION.name,
        description=describe_suite(name, suite),
        deps=[build_export_key(last_stage)],
        partitions_def=partitions,
        kinds={"lance", "lmms-eval"},
        owners=OWNERS,
        tags={metadata_keys.SUITE: name},
        pool=GPU_POOL,
        code_version=f"{BENCHMARK_CODE_VERSION}-{compute_digest('suite', suite_config)[:12]}",
        check_specs=[
            build_schema_check(key, partitions),
            build_partition_check(key, JUDGED_CHECK, partitions, "Every question that a judge scores has a verdict."),
        ],
    )
    def benchmark(
        context: dg.AssetExecutionContext, launcher: Launcher, config: BenchmarkConfig
    ) -> dg.MaterializeResult:
        lake = open_lake()
        report = run_benchmark(
            lake,
            load_current_checkpoint(config.stage or last_stage),
            name,
            context.partition_key,
            benchmark_settings=BenchmarkSettings(
                backend=config.backend,
                protocol=config.protocol,
                limit=config.limit or None,
                max_new_tokens=config.max_new_tokens or None,
                base_urls=tuple(config.base_urls),
                model=config.model or None,
            ),
            run_id=context.run_id,
            launch=lambda command, folder: launcher.run(context, command, run_dir=folder),
        )
        other_scores = read_benchmark_scores(lake, context.partition_key)
        rules = load_profile(load_settings().profile).contamination
        touched = record_touched_items(lake, report.checkpoint, rules, run_id=context.run_id)
        clean = (
            None
            if touched is None
            else compute_clean_score(
                lake, context.partition_key, report.checkpoint.version, report.settings_hash, touched
            )
        )
        scores = {metadata_keys.SCORE: report.result.score, metadata_keys.STDERR: report.result.stderr}
        proxy_for = suite.benchmarks[context.partition_key].proxy_for
        tasks = {task.task: f"{task.task_version} {task.task_hash}" for task in report.result.task_scores}
        table = lake.get_table(TABLE)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata={
                **build_table_metadata(table, rows=table.count()),
                metadata_keys.SCORES: render_in_dialog(
                    f"{render_score_table(report, other_scores)}\n\n{render_clean_score(clean, touched)}"
                ),
                **({} if clean is None else _build_clean_metadata(clean)),
                **{key: value for key, value in scores.items() if value is not None},
                metadata_keys.QUESTIONS: report.result.n_questions,
                metadata_keys.CHECKPOINT: f"{report.checkpoint.stage} {report.checkpoint.version}",
                metadata_keys.TASKS: dg.JsonMetadataValue(tasks),
                metadata_keys.LMMS_EVAL_VERSION: report.result.lmms_eval_version,
                metadata_keys.SETTINGS_HASH: report.settings_hash,
                metadata_keys.PROTOCOL: report.protocol,
                **({} if proxy_for is None else {metadata_keys.PROXY_FOR: proxy_for}),
                metadata_keys.PREVIEW: render_in_dialog(
                    render_benchmark_preview(report.folder, read_first_answers(lake, report))
                ),
            },
            check_results=[
                build_schema_result(key, table),
                dg.AssetCheckResult(
                    asset_key=key,
                    check_name=JUDGED_CHECK,
                    passed=not report.result.n_unjudged,
                    severity=dg.AssetCheckSeverity.ERROR,
                    metadata={
                        metadata_keys.QUESTIONS: report.result.n_questions,
                        metadata_keys.UNJUDGED: report.result.n_unjudged,
                    },
                ),
            ],
        )

    return benchmark


def _build_clean_metadata(clean: CleanScore) -> dict[str, float | int]:
    scores = {} if clean.clean_score is None else {metadata_keys.CLEAN_SCORE: clean.clean_score}
    return {**scores, metadata_keys.CLEAN_QUESTIONS: clean.n_clean}
