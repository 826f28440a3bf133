"""Two checkpoints, paired by question: how far apart they are, and whether that could be chance.

Belongs here: pairing stored answers, and the statistics. Does not: asking (`benchmarking`), showing
(`compare_command`).

Unpaired standard errors hide what pairing shows: both answer the same questions, so most of the noise is common.
Interval: percentile bootstrap over questions. p-value: McNemar's exact test over the questions that only one of them
answered right (Q. McNemar, Psychometrika 12, 1947), for scores that are right or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.benchmark_run import ANSWERS, TABLE
from mvl_training.evaluation.benchmarks.registry import BenchmarkError
from mvl_training.recipe import STAGES

SEED = 20241206
RESAMPLES = 10_000
# Rows of counts held at once.
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Comparison:
    """Means are over the questions that both were asked, from 0 to 100; `difference` is second minus first, `low` and
    `high` its 95 % interval. `gained` and `lost` count questions by which the second was better and worse. `p_value`
    is None for scores between right and wrong."""

    benchmark: str
    questions: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    gained: int
    lost: int
    p_value: float | None


def compare(benchmark: str, first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """Scores by question, each from 0 to 1. Raises `BenchmarkError` when they have no question in common."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise BenchmarkError(
            f"no question of {benchmark} was asked of both checkpoints", hint="materialise it for both of them"
        )
    before = np.array([first[key] for key in shared])
    after = np.array([second[key] for key in shared])
    change = after - before
    low, high = _interval(change)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    right_or_wrong = bool(np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all())
    return Comparison(
        benchmark=benchmark,
        questions=len(shared),
        first=100 * float(before.mean()),
        second=100 * float(after.mean()),
        difference=100 * float(change.mean()),
        low=100 * low,
        high=100 * high,
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost) if right_or_wrong else None,
    )


def _interval(change: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean. Drawing n of n with replacement is drawing how often each value comes."""
    values, times = np.unique(change, return_counts=True)
    rng = np.random.default_rng(SEED)
    means = [
        rng.multinomial(len(change), times / len(change), size=CHUNK) @ values / len(change)
        for _ in range(RESAMPLES // CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value: how likely a fair coin divides the changed questions at least as unevenly."""
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


def compare_stored(lake: Lake, first: str, second: str, benchmarks: Sequence[str] | None = None) -> list[Comparison]:
    """Compares two checkpoint versions over all benchmarks (or those named) that both were asked in the same way.

    Where they were asked in several ways, that with the most common questions counts. Benchmarks whose questions have
    no score of their own are left out. Raises `BenchmarkError` when nothing is left.
    """
    answers = {version: _answers(lake, version, benchmarks) for version in (first, second)}
    found: dict[str, Comparison] = {}
    for (benchmark, settings), scores in answers[first].items():
        other = answers[second].get((benchmark, settings))
        if other is None or not scores.keys() & other.keys():
            continue
        made = compare(benchmark, scores, other)
        if benchmark not in found or made.questions > found[benchmark].questions:
            found[benchmark] = made
    if not found:
        raise BenchmarkError(
            "no benchmark was asked of both checkpoints in the same way",
            hint="materialise a benchmark of a suite for both, with the same settings (`held_out` is no suite)",
        )
    return [found[name] for name in sorted(found)]


def _answers(lake: Lake, version: str, benchmarks: Sequence[str] | None) -> dict[tuple[str, str], dict[str, float]]:
    """Scores by question, by benchmark and settings. A question's key holds the hash of its task's code."""
    wanted = f"{sql.equals('checkpoint_version', version)} AND score IS NOT NULL"
    if benchmarks:
        wanted += f" AND {sql.within('benchmark', list(benchmarks))}"
    columns = ["benchmark", "settings_hash", "task", "task_hash", "question_id", "document", "score"]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in lake.table(ANSWERS).rows(columns, wanted):
        key = f"{row['task']} {row['task_hash']} {row['document']} {row['question_id']}"
        found.setdefault((row["benchmark"], row["settings_hash"]), {})[key] = row["score"]
    return found


def version_of(lake: Lake, name: str) -> str:
    """The checkpoint version that a stage's name (its current checkpoint) or the beginning of a version means. Raises
    `BenchmarkError` for none or several."""
    if name in STAGES:
        from mvl_training.runs.stage_run import current_checkpoint

        return current_checkpoint(name).version
    known = {(row["checkpoint_version"], row["checkpoint"]) for row in lake.table(TABLE).rows()}
    matches = sorted(version for version, _ in known if version.startswith(name))
    if len(matches) != 1:
        listed = ", ".join(f"{version[:8]} ({stage})" for version, stage in sorted(known))
        raise BenchmarkError(
            f"{'no checkpoint' if not matches else 'more than one checkpoint'} that was asked begins with {name!r}",
            hint=f"asked were {listed}" if known else "materialise one of `evaluation/<suite>` first",
        )
    return matches[0]
