"""The assets `evaluation/<suite>` whose partitions are benchmarks: the paper's 23 in three suites, and the local one.

Belongs here: declarations and how results look in the UI. Does not: the benchmarks (`evaluation/benchmarks.yaml`) and
running them (`evaluation.benchmarking`).
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from collections.abc import Sequence
from typing import Literal

import dagster as dg

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TrainingStage
from mvl_training.evaluation.benchmarks.registry import LOCAL_SUITE, Suite, load_suites
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.table_metadata import build_table_metadata

# Raised by hand when the meaning of the code changes; what is declared is hashed beside it.
BENCHMARK_CODE_VERSION = "1"


class BenchmarkConfig(dg.Config):
    """Whose answers are wanted, and how.

    `backend` is runner (this project's own code, films too) or server (a vLLM server of the checkpoint; `base_url` and
    `model` name one that runs already). vLLM tiles each of several pictures as if it stood alone, unlike training, so
    scores over several pictures are the runner's. `limit` asks the first questions of each task only; 0 asks all.
    `max_new_tokens` stands in place of the tasks' own bounds; 0 leaves them.
    """

    stage: TrainingStage = "one_vision"
    backend: Literal["runner", "server"] = "runner"
    limit: int = 0
    max_new_tokens: int = 0
    base_url: str = ""
    model: str = ""


def build_benchmark_assets(*, owners: Sequence[str], pool: str) -> list[dg.AssetsDefinition]:
    """One asset per suite of `registry.yaml`."""
    return [_build_suite_asset(name, suite, owners, pool) for name, suite in load_suites().items()]


def _build_suite_asset(name: str, suite: Suite, owners: Sequence[str], pool: str) -> dg.AssetsDefinition:
    suite_config = {key: definition.model_dump(mode="json") for key, definition in suite.benchmarks.items()}
    reference_note = "" if name == LOCAL_SUITE else " The paper's numbers for MAmmoTH-VL-8B stand beside."

    @dg.asset(
        key=["evaluation", name],
        group_name="evaluation",
        description=f"{suite.about} One partition is one benchmark, asked and scored by lmms-eval in an environment of"
        f" its own (`make eval-setup`), with standard errors.{reference_note} `mvl compare` pairs two checkpoints by question.",
        deps=[dg.AssetKey(["checkpoint", "one_vision"])],
        partitions_def=dg.StaticPartitionsDefinition(list(suite.benchmarks)),
        kinds={"lance", "lmms-eval"},
        owners=list(owners),
        tags={"mvl/suite": name},
        pool=pool,
        code_version=f"{BENCHMARK_CODE_VERSION}-{compute_digest('suite', suite_config)[:12]}",
    )
    def benchmark(
        context: dg.AssetExecutionContext, launcher: Launcher, config: BenchmarkConfig
    ) -> dg.MaterializeResult:
        from mvl_assets.config.settings import load_settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.evaluation.benchmarks import benchmark_run
        from mvl_training.runs import stage_run

        lake = Lake(load_settings().lake_root)
        benchmark_report = benchmark_run.run_benchmark(
            lake,
            stage_run.load_current_checkpoint(config.stage),
            name,
            context.partition_key,
            benchmark_settings=benchmark_run.BenchmarkSettings(
                backend=config.backend,
                limit=config.limit or None,
                max_new_tokens=config.max_new_tokens or None,
                base_url=config.base_url or None,
                model=config.model or None,
            ),
            run_id=context.run_id,
            launch=lambda command, folder: launcher.run(context, command, run_dir=folder),
        )
        other_scores = benchmark_run.read_benchmark_scores(lake, context.partition_key)
        metrics = {"score": benchmark_report.result.score, "standard error": benchmark_report.result.stderr}
        tasks = {task.task: f"{task.task_version} {task.task_hash}" for task in benchmark_report.result.task_scores}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(benchmark_report.data_version),
            metadata={
                **build_table_metadata(lake.get_table(benchmark_run.TABLE)),
                "scores": dg.MarkdownMetadataValue(benchmark_run.render_score_table(benchmark_report, other_scores)),
                **{key: value for key, value in metrics.items() if value is not None},
                "questions": benchmark_report.result.n_questions,
                "checkpoint": f"{benchmark_report.checkpoint.stage} {benchmark_report.checkpoint.version}",
                "tasks": dg.JsonMetadataValue(tasks),
                "lmms-eval": benchmark_report.result.lmms_eval_version,
                "settings hash": benchmark_report.settings_hash,
            },
        )

    return benchmark
