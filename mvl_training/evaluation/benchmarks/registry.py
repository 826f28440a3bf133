"""Which benchmarks there are: `benchmarks.yaml` read and checked, and one benchmark's score from lmms-eval's results.

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

from mvl_assets.errors import MvlError
from mvl_training.recipe import StageName

FILE = Path(__file__).parent / "benchmarks.yaml"
TASKS = Path(__file__).parents[1] / "tasks"
LOCAL = "local"


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
    max_new_tokens: int | None = Field(default=None, ge=1)
    paper: dict[StageName, float] = {}
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
    return TypeAdapter(dict[str, Suite]).validate_python(yaml.safe_load(FILE.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class TaskScore:
    """What lmms-eval found for one task. `questions`: those that count in the score. `score` and `stderr` are on the
    benchmark's scale of 0 to 100; None where the task only writes a file for submission. `task_hash` is the digest of
    its settings and code."""

    task: str
    questions: int
    score: float | None
    stderr: float | None
    version: str
    task_hash: str


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark: the plain mean over its tasks, with its standard error when all of them have one."""

    tasks: tuple[TaskScore, ...]
    score: float | None
    stderr: float | None
    lmms_eval_version: str

    @property
    def questions(self) -> int:
        return sum(task.questions for task in self.tasks)


def result_of(benchmark: Benchmark, report: Mapping[str, Any]) -> Result:
    """From what `lmms.run` left in `results.json`. Raises `BenchmarkError` when the declared score is not in it."""
    tasks = tuple(_task_score(benchmark, task, report) for task in benchmark.tasks)
    scores = [task.score for task in tasks if task.score is not None]
    errors = [task.stderr for task in tasks if task.stderr is not None]
    return Result(
        tasks=tasks,
        score=math.fsum(scores) / len(tasks) if len(scores) == len(tasks) else None,
        stderr=math.hypot(*errors) / len(tasks) if len(errors) == len(tasks) else None,
        lmms_eval_version=str(report["lmms_eval_version"]),
    )


def _task_score(benchmark: Benchmark, task: str, report: Mapping[str, Any]) -> TaskScore:
    found = report["results"][task]
    score = error = None
    if benchmark.metric is not None:
        key = f"{benchmark.metric},{benchmark.filter}"
        if key not in found:
            raise BenchmarkError(
                f"lmms-eval gave no {key!r} for {task}, only {', '.join(sorted(found))}",
                hint="a benchmark with `limit` may have no question of the wanted kind; else correct benchmarks.yaml",
            )
        score = _number(found[key])
        error = _stderr(found, report["bootstrap"].get(task, {}), benchmark)
    asked = int(report["n-samples"][task]["effective"])
    return TaskScore(
        task=task,
        # Some tasks hold several benchmarks' questions, each with a metric of its own.
        questions=report["counted"][task].get(benchmark.metric, asked),
        score=None if score is None else score * benchmark.scale,
        stderr=error,
        version=str(report["versions"].get(task)),
        task_hash=report["task_hashes"][task],
    )


def _stderr(found: Mapping[str, Any], bootstrap: Mapping[str, Any], benchmark: Benchmark) -> float | None:
    """The best there is, from 0 to 100: one that counts questions about one film as one, the aggregate's own, the one
    by resampling, the plain one. The first and last are of the questions' scores, which lie between 0 and 1."""
    metric, filter_ = benchmark.metric, benchmark.filter
    candidates = (
        (found.get(f"{metric}_stderr_clustered,{filter_}"), 100.0),
        (found.get(f"{metric}_stderr,{filter_}"), benchmark.scale),
        (bootstrap.get(str(metric)), benchmark.scale),
        (found.get(f"{metric}_stderr_clt,{filter_}"), 100.0),
    )
    return next((n * scale for value, scale in candidates if (n := _number(value)) is not None), None)


def _number(value: object) -> float | None:
    """lmms-eval writes `N/A` where there is none, and some tasks give numbers as text."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def question_score(sample: Mapping[str, Any], benchmark: Benchmark) -> float | None:
    """What one question brought, from 0 to 1, from its line in `samples.jsonl`.

    That is the metric's number, or the one that a task keeps in its record of the question as `score`, `correct` or
    `true_false`, or what the task's aggregate makes of the question by itself, or else whether two answers are equal
    (the one that was said may stand alone in a list). None where there is no such thing.
    """
    metric = benchmark.metric
    value = sample.get(metric) if metric is not None else None
    if metric is None or not isinstance(value, Mapping):
        return _number(value)
    for name in ("score", "correct", "true_false"):
        if (number := _number(value.get(name))) is not None:
            return number
    by_itself = _number(sample.get("alone", {}).get(metric))
    if by_itself is not None and 0 <= by_itself * benchmark.scale <= 100:
        return by_itself * benchmark.scale / 100
    for said, true in (("pred", "answer"), ("pred_answer", "answer"), ("parsed_pred", "answer")):
        answer = value.get(said)
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if isinstance(answer, str) and isinstance(value.get(true), str):
            return float(answer.lower().strip() == value[true].lower().strip())
    return None
