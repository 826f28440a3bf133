"""The assets `evaluation/<suite>` whose partitions are benchmarks: the paper's 23 in three suites, and the local one.

Belongs here: declarations and how results look in the UI. Does not: the benchmarks (`evaluation/benchmarks.yaml`) and
running them (`evaluation.benchmarking`).
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from collections.abc import Sequence
from typing import Literal

import dagster as dg

from mvl_assets.common.digest import digest_hex
from mvl_training.evaluation.benchmarks.registry import LOCAL, Suite, load_suites
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.table_metadata import table_metadata
from mvl_training.recipe import StageName

# Raised by hand when the meaning of the code changes; what is declared is hashed beside it.
BENCHMARK_CODE = "1"


class BenchmarkRun(dg.Config):
    """Whose answers are wanted, and how.

    `via` is runner (this project's own code, films too) or server (a vLLM server of the checkpoint; `base_url` and
    `model` name one that runs already). vLLM tiles each of several pictures as if it stood alone, unlike training, so
    scores over several pictures are the runner's. `limit` asks the first questions of each task only; 0 asks all.
    `max_new_tokens` stands in place of the tasks' own bounds; 0 leaves them.
    """

    stage: StageName = "one_vision"
    via: Literal["runner", "server"] = "runner"
    limit: int = 0
    max_new_tokens: int = 0
    base_url: str = ""
    model: str = ""


def benchmark_suites(*, owners: Sequence[str], pool: str) -> list[dg.AssetsDefinition]:
    """One asset per suite of `benchmarks.yaml`."""
    return [_suite(name, suite, owners, pool) for name, suite in load_suites().items()]


def _suite(name: str, suite: Suite, owners: Sequence[str], pool: str) -> dg.AssetsDefinition:
    declared = {key: one.model_dump(mode="json") for key, one in suite.benchmarks.items()}
    origin = "" if name == LOCAL else " The paper's numbers for MAmmoTH-VL-8B stand beside."

    @dg.asset(
        key=["evaluation", name],
        group_name="evaluation",
        description=f"{suite.about} One partition is one benchmark, asked and scored by lmms-eval in an environment of"
        f" its own (`make eval-setup`), with standard errors.{origin} `mvl compare` pairs two checkpoints by question.",
        deps=[dg.AssetKey(["checkpoint", "one_vision"])],
        partitions_def=dg.StaticPartitionsDefinition(list(suite.benchmarks)),
        kinds={"lance", "lmms-eval"},
        owners=list(owners),
        tags={"mvl/suite": name},
        pool=pool,
        code_version=f"{BENCHMARK_CODE}-{digest_hex('suite', declared)[:12]}",
    )
    def benchmark(context: dg.AssetExecutionContext, launcher: Launcher, config: BenchmarkRun) -> dg.MaterializeResult:
        from mvl_assets.config.settings import settings
        from mvl_assets.lake.lake import Lake
        from mvl_training.evaluation.benchmarks import benchmark_run
        from mvl_training.runs import stage_run

        lake = Lake(settings().lake_root)
        found = benchmark_run.run(
            lake,
            stage_run.current_checkpoint(config.stage),
            name,
            context.partition_key,
            asking=benchmark_run.Asking(
                via=config.via,
                limit=config.limit or None,
                max_new_tokens=config.max_new_tokens or None,
                base_url=config.base_url or None,
                model=config.model or None,
            ),
            run_id=context.run_id,
            launch=lambda command, folder: launcher.run(context, command, folder=folder),
        )
        others = benchmark_run.scores(lake, context.partition_key)
        numbers = {"score": found.result.score, "standard error": found.result.stderr}
        tasks = {one.task: f"{one.version} {one.task_hash}" for one in found.result.tasks}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.data_version),
            metadata={
                **table_metadata(lake.table(benchmark_run.TABLE)),
                "scores": dg.MarkdownMetadataValue(benchmark_run.score_table(found, others)),
                **{key: value for key, value in numbers.items() if value is not None},
                "questions": found.result.questions,
                "checkpoint": f"{found.checkpoint.stage} {found.checkpoint.version}",
                "tasks": dg.JsonMetadataValue(tasks),
                "lmms-eval": found.result.lmms_eval_version,
                "settings hash": found.settings_hash,
            },
        )

    return benchmark
