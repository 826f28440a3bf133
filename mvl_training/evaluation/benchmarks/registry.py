"""Registry of the benchmarks that `benchmarks.yaml` declares, and their scores from lmms-eval's results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.strict_yaml import read_document
from mvl_assets.errors import MvlError
from mvl_training.evaluation.benchmarks.paper_protocol import PaperProtocol
from mvl_training.evaluation.lmms.judge_calls import UNJUDGED

SUITES_FILE = Path(__file__).parent / "benchmarks.yaml"
TASKS_DIR = Path(__file__).parents[1] / "tasks"
LOCAL_SUITE = "local"


class BenchmarkError(MvlError):
    """A benchmark cannot be run, or its results cannot be read."""


class Benchmark(BaseModel):
    """One benchmark; the fields are explained at the top of `benchmarks.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[str, ...] = Field(min_length=1)
    metric: str | None
    filter: str = "none"
    scale: float = 1.0
    judge: bool = False
    verdict: str | None = None
    macro: str | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    paper: dict[TrainingStage, float] = {}
    chance: float | None = None
    proxy_for: str | None = None
    paper_protocol: PaperProtocol = PaperProtocol()
    note: str | None = None


class Suite(BaseModel):
    """Benchmarks of one asset, by their names in the paper. `about` is a sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    benchmarks: dict[str, Benchmark]


class _Suites(RootModel[dict[str, Suite]]):
    """The whole file: suites by name."""


@cache
def load_suites() -> Mapping[str, Suite]:
    """Return all suites of `benchmarks.yaml` by name."""
    return read_suites(SUITES_FILE)


def read_suites(path: Path) -> Mapping[str, Suite]:
    """Read suites from a file.

    Raises:
        YamlError: The file cannot be read, or declares a suite wrongly; with the line.
    """
    return read_document(path).validate(_Suites).root


@dataclass(frozen=True, slots=True)
class TaskScore:
    """lmms-eval's result of one task.

    Attributes:
        task: Its name in lmms-eval.
        n_questions: Questions that count in the score.
        score: From 0 to 100; None where the task only writes a file for submission.
        stderr: Standard error of the score.
        task_version: lmms-eval's version of the task.
        task_hash: Digest of the task's settings and code.
        n_unjudged: Questions for which a judge gave no verdict; the score is None if there are any.
    """

    task: str
    n_questions: int
    score: float | None
    stderr: float | None
    task_version: str
    task_hash: str
    n_unjudged: int = 0


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """One benchmark: the unweighted mean of its tasks, with a standard error when all of them have one.

    It has no score if a task has none.
    """

    task_scores: tuple[TaskScore, ...]
    score: float | None
    stderr: float | None
    lmms_eval_version: str

    @property
    def n_questions(self) -> int:
        """Questions of all tasks."""
        return sum(task.n_questions for task in self.task_scores)

    @property
    def n_unjudged(self) -> int:
        """Questions of all tasks for which a judge gave no verdict."""
        return sum(task.n_unjudged for task in self.task_scores)


def parse_benchmark_result(benchmark: Benchmark, lmms_results: Mapping[str, Any]) -> BenchmarkResult:
    """Return the score from the `results.json` of `lmms.run`.

    Raises:
        BenchmarkError: The results lack the declared metric.
    """
    task_scores = tuple(_parse_task_score(benchmark, task, lmms_results) for task in benchmark.tasks)
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
    n_unjudged = lmms_results["unjudged"][task]
    # A question without a verdict has a number in the aggregate all the same.
    if benchmark.metric is not None and not n_unjudged:
        metric_key = f"{benchmark.metric},{benchmark.filter}"
        if metric_key not in task_metrics:
            raise BenchmarkError(
                f"lmms-eval gave no {metric_key!r} for {task}, only {', '.join(sorted(task_metrics))}",
                hint="with a `limit`, possibly no question has this metric; otherwise correct benchmarks.yaml",
            )
        score = _parse_number(task_metrics[metric_key])
        stderr = _select_stderr(task_metrics, lmms_results["bootstrap"].get(task, {}), benchmark)
    n_effective = int(lmms_results["n-samples"][task]["effective"])
    return TaskScore(
        task=task,
        # Some tasks contain the questions of several benchmarks, each with a metric of its own.
        n_questions=lmms_results["question_counts"][task].get(benchmark.metric, n_effective),
        score=None if score is None else score * benchmark.scale,
        stderr=stderr,
        task_version=str(lmms_results["versions"].get(task)),
        task_hash=lmms_results["task_hashes"][task],
        n_unjudged=n_unjudged,
    )


def _select_stderr(task_metrics: Mapping[str, Any], bootstrap: Mapping[str, Any], benchmark: Benchmark) -> float | None:
    """Return the best available standard error, on a scale of 0 to 100.

    Best first: clustered (questions about one video count as one), the aggregate's own, by resampling, plain. The first
    and the last are on question scores, which are between 0 and 1.
    """
    metric, filter_ = benchmark.metric, benchmark.filter
    candidates = (
        (task_metrics.get(f"{metric}_stderr_clustered,{filter_}"), 100.0),
        (task_metrics.get(f"{metric}_stderr,{filter_}"), benchmark.scale),
        (bootstrap.get(str(metric)), benchmark.scale),
        (task_metrics.get(f"{metric}_stderr_clt,{filter_}"), 100.0),
    )
    return next((n * scale for value, scale in candidates if (n := _parse_number(value)) is not None), None)


def _parse_number(value: object) -> float | None:
    """Return a finite number or None: lmms-eval writes `N/A` for no value, and some tasks give numbers as text."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def compute_question_score(sample: Mapping[str, Any], benchmark: Benchmark) -> float | None:
    """Return the score of one question, from 0 to 1, from its line in `samples.jsonl`; None if it has none.

    It is above 1 where a judge compares the answer with a reference, and finds it better.

    The first of these that exists: the metric's number; `score`, `correct` or `true_false` of the task's record of the
    question; the task's aggregate of this question alone; whether the record's prediction (or list of one prediction)
    equals its answer; whether the number of the option is that of the right one.
    """
    if UNJUDGED in sample:
        return None
    metric = benchmark.metric
    value = sample.get(metric) if metric is not None else None
    if metric is None or not isinstance(value, Mapping):
        return _parse_number(value)
    for score_key in ("score", "correct", "true_false"):
        if (number := _parse_number(value.get(score_key))) is not None:
            return number
    single_question_score = _parse_number(sample.get("single_question_scores", {}).get(metric))
    if single_question_score is not None and (0 <= single_question_score * benchmark.scale <= 100 or benchmark.judge):
        return single_question_score * benchmark.scale / 100
    for answer_key, reference_key in (("pred", "answer"), ("pred_answer", "answer"), ("parsed_pred", "answer")):
        answer = value.get(answer_key)
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if isinstance(answer, str) and isinstance(value.get(reference_key), str):
            return float(answer.lower().strip() == value[reference_key].lower().strip())
    if isinstance(value.get("pred"), int) and "ground_truth" in value:
        return float(str(value["pred"]) == str(value["ground_truth"]))
    return None


def read_stratum(sample: Mapping[str, Any], benchmark: Benchmark) -> str | None:
    """Return which of the means that the task takes the mean of a question belongs to; None if it takes one mean."""
    record = sample.get(benchmark.metric or "")
    return str(record[benchmark.macro]) if benchmark.macro is not None and isinstance(record, Mapping) else None
