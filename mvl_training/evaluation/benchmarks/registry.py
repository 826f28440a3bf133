"""Which benchmarks there are: `registry.yaml` read and checked, and one benchmark's score from lmms-eval's results.

Belongs here: the declared benchmarks and the arithmetic from tasks to a score. Does not: running them (`benchmarking`),
tables and UI.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError

SUITES_FILE = Path(__file__).parent / "benchmarks.yaml"
TASKS_DIR = Path(__file__).parents[1] / "tasks"
LOCAL_SUITE = "local"


class BenchmarkError(MvlError):
    """A benchmark cannot be run, or its results cannot be read."""


class Benchmark(BaseModel):
    """One benchmark; the fields are explained at the top of `registry.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[str, ...] = Field(min_length=1)
    metric: str | None
    filter: str = "none"
    scale: float = 1.0
    judge: bool = False
    max_new_tokens: int | None = Field(default=None, ge=1)
    paper: dict[TrainingStage, float] = {}
    chance: float | None = None
    note: str | None = None


class Suite(BaseModel):
    """Benchmarks that are one asset, by their names in the paper. `about` is a sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    benchmarks: dict[str, Benchmark]


@cache
def load_suites() -> Mapping[str, Suite]:
    """All suites by name."""
    return TypeAdapter(dict[str, Suite]).validate_python(yaml.safe_load(SUITES_FILE.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class TaskScore:
    """What lmms-eval found for one task. `n_questions`: those that count in the score. `score` and `stderr` are on the
    benchmark's scale of 0 to 100; None where the task only writes a file for submission. `compute_task_hash` is the digest of
    its settings and code."""

    task: str
    n_questions: int
    score: float | None
    stderr: float | None
    task_version: str
    task_hash: str


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """One benchmark: the plain mean over its tasks, with its standard error when all of them have one."""

    task_scores: tuple[TaskScore, ...]
    score: float | None
    stderr: float | None
    lmms_eval_version: str

    @property
    def n_questions(self) -> int:
        return sum(task.n_questions for task in self.task_scores)


def parse_benchmark_result(benchmark: Benchmark, lmms_results: Mapping[str, Any]) -> BenchmarkResult:
    """From what `lmms.run` left in `results.json`. Raises `BenchmarkError` when the declared score is not in it."""
    task_scores = tuple(_parse_task_score(benchmark, task_score, lmms_results) for task_score in benchmark.tasks)
    scores = [task.score for task in task_scores if task.score is not None]
    stderrs = [task.stderr for task in task_scores if task.stderr is not None]
    return BenchmarkResult(
        task_scores=task_scores,
        score=math.fsum(scores) / len(task_scores) if len(scores) == len(task_scores) else None,
        stderr=math.hypot(*stderrs) / len(task_scores) if len(stderrs) == len(task_scores) else None,
        lmms_eval_version=str(lmms_results["lmms_eval_version"]),
    )


def _parse_task_score(benchmark: Benchmark, task: str, lmms_results: Mapping[str, Any]) -> TaskScore:
    task_metrics = lmms_results["results"][task]
    score = stderr = None
    if benchmark.metric is not None:
        metric_key = f"{benchmark.metric},{benchmark.filter}"
        if metric_key not in task_metrics:
            raise BenchmarkError(
                f"lmms-eval gave no {metric_key!r} for {task}, only {', '.join(sorted(task_metrics))}",
                hint="a benchmark with `limit` may have no question of the wanted kind; else correct benchmarks.yaml",
            )
        score = _parse_number(task_metrics[metric_key])
        stderr = _select_stderr(task_metrics, lmms_results["bootstrap"].get(task, {}), benchmark)
    n_asked = int(lmms_results["n-samples"][task]["effective"])
    return TaskScore(
        task=task,
        # Some tasks hold several benchmarks' questions, each with a metric of its own.
        n_questions=lmms_results["counted"][task].get(benchmark.metric, n_asked),
        score=None if score is None else score * benchmark.scale,
        stderr=stderr,
        task_version=str(lmms_results["versions"].get(task)),
        task_hash=lmms_results["task_hashes"][task],
    )


def _select_stderr(task_metrics: Mapping[str, Any], bootstrap: Mapping[str, Any], benchmark: Benchmark) -> float | None:
    """The best there is, from 0 to 100: one that counts questions about one film as one, the aggregate's own, the one
    by resampling, the plain one. The first and last are of the questions' scores, which lie between 0 and 1."""
    metric, filter_ = benchmark.metric, benchmark.filter
    candidates = (
        (task_metrics.get(f"{metric}_stderr_clustered,{filter_}"), 100.0),
        (task_metrics.get(f"{metric}_stderr,{filter_}"), benchmark.scale),
        (bootstrap.get(str(metric)), benchmark.scale),
        (task_metrics.get(f"{metric}_stderr_clt,{filter_}"), 100.0),
    )
    return next((n * scale for value, scale in candidates if (n := _parse_number(value)) is not None), None)


def _parse_number(value: object) -> float | None:
    """lmms-eval writes `N/A` where there is none, and some tasks give numbers as text."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def compute_question_score(sample: Mapping[str, Any], benchmark: Benchmark) -> float | None:
    """What one question brought, from 0 to 1, from its line in `samples.jsonl`.

    That is the metric's number, or the one that a task keeps in its record of the question as `score`, `correct` or
    `true_false`, or what the task's aggregate makes of the question by itself, or else whether two answers are equal
    (the one that was said may stand alone in a list). None where there is no such thing.
    """
    metric = benchmark.metric
    value = sample.get(metric) if metric is not None else None
    if metric is None or not isinstance(value, Mapping):
        return _parse_number(value)
    for score_key in ("score", "correct", "true_false"):
        if (number := _parse_number(value.get(score_key))) is not None:
            return number
    single_question_score = _parse_number(sample.get("alone", {}).get(metric))
    if single_question_score is not None and 0 <= single_question_score * benchmark.scale <= 100:
        return single_question_score * benchmark.scale / 100
    for answer_key, reference_key in (("pred", "answer"), ("pred_answer", "answer"), ("parsed_pred", "answer")):
        answer = value.get(answer_key)
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if isinstance(answer, str) and isinstance(value.get(reference_key), str):
            return float(answer.lower().strip() == value[reference_key].lower().strip())
    return None
