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

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.benchmark_run import ANSWERS_TABLE, TABLE
from mvl_training.evaluation.benchmarks.registry import BenchmarkError

SEED = 20241206
N_RESAMPLES = 10_000
# Rows of counts held at once.
RESAMPLE_CHUNK = 500


@dataclass(frozen=True, slots=True)
class CheckpointComparison:
    """Means are over the questions that both were asked, from 0 to 100; `difference` is second minus first, `ci_low` and
    `ci_high` its 95 % interval. `n_gained` and `n_lost` count questions by which the second was better and worse. `p_value`
    is None for scores between right and wrong."""

    benchmark: str
    n_questions: int
    first_score: float
    second_score: float
    difference: float
    ci_low: float
    ci_high: float
    n_gained: int
    n_lost: int
    p_value: float | None


def compare_scores(
    benchmark: str, first_by_question: Mapping[str, float], second_by_question: Mapping[str, float]
) -> CheckpointComparison:
    """Scores by question, each from 0 to 1. Raises `BenchmarkError` when they have no question in common."""
    shared_keys = sorted(first_by_question.keys() & second_by_question.keys())
    if not shared_keys:
        raise BenchmarkError(
            f"no question of {benchmark} was asked of both checkpoints", hint="materialise it for both of them"
        )
    first_scores = np.array([first_by_question[key] for key in shared_keys])
    second_scores = np.array([second_by_question[key] for key in shared_keys])
    differences = second_scores - first_scores
    ci_low, ci_high = _bootstrap_interval(differences)
    n_gained, n_lost = int((differences > 0).sum()), int((differences < 0).sum())
    is_binary = bool(np.isin(first_scores, (0, 1)).all() and np.isin(second_scores, (0, 1)).all())
    return CheckpointComparison(
        benchmark=benchmark,
        n_questions=len(shared_keys),
        first_score=100 * float(first_scores.mean()),
        second_score=100 * float(second_scores.mean()),
        difference=100 * float(differences.mean()),
        ci_low=100 * ci_low,
        ci_high=100 * ci_high,
        n_gained=n_gained,
        n_lost=n_lost,
        p_value=compute_mcnemar_p_value(n_gained, n_lost) if is_binary else None,
    )


def _bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean. Drawing n of n with replacement is drawing how often each value comes."""
    values, counts = np.unique(differences, return_counts=True)
    rng = np.random.default_rng(SEED)
    means = [
        rng.multinomial(len(differences), counts / len(differences), size=RESAMPLE_CHUNK) @ values / len(differences)
        for _ in range(N_RESAMPLES // RESAMPLE_CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def compute_mcnemar_p_value(n_gained: int, n_lost: int) -> float:
    """Two-sided exact p-value: how likely a fair coin divides the changed questions at least as unevenly."""
    n_changed = n_gained + n_lost
    tail = sum(math.comb(n_changed, k) for k in range(min(n_gained, n_lost) + 1))
    return min(1.0, 2 * tail / 2**n_changed)


def compare_checkpoints(
    lake: Lake, first_version: str, second_version: str, benchmarks: Sequence[str] | None = None
) -> list[CheckpointComparison]:
    """Compares two checkpoint versions over all benchmarks (or those named) that both were asked in the same way.

    Where they were asked in several ways, that with the most common questions counts. Benchmarks whose questions have
    no score of their own are left out. Raises `BenchmarkError` when nothing is left.
    """
    scores_by_version = {
        version: _read_question_scores(lake, version, benchmarks) for version in (first_version, second_version)
    }
    comparisons: dict[str, CheckpointComparison] = {}
    for (benchmark, settings_hash), scores in scores_by_version[first_version].items():
        other_scores = scores_by_version[second_version].get((benchmark, settings_hash))
        if other_scores is None or not scores.keys() & other_scores.keys():
            continue
        comparison = compare_scores(benchmark, scores, other_scores)
        if benchmark not in comparisons or comparison.n_questions > comparisons[benchmark].n_questions:
            comparisons[benchmark] = comparison
    if not comparisons:
        raise BenchmarkError(
            "no benchmark was asked of both checkpoints in the same way",
            hint="materialise a benchmark of a suite for both, with the same settings (`cross_validated` is no suite)",
        )
    return [comparisons[name] for name in sorted(comparisons)]


def _read_question_scores(
    lake: Lake, version: str, benchmarks: Sequence[str] | None
) -> dict[tuple[str, str], dict[str, float]]:
    """Scores by question, by benchmark and settings. A question's key holds the hash of its task's code."""
    row_filter = f"{sql.equals('checkpoint_version', version)} AND score IS NOT NULL"
    if benchmarks:
        row_filter += f" AND {sql.is_in('benchmark', list(benchmarks))}"
    columns = ["benchmark", "settings_hash", "task", "task_hash", "question_id", "doc_id", "score"]
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for row in lake.get_table(ANSWERS_TABLE).iter_rows(columns, row_filter):
        question_key = f"{row['task']} {row['task_hash']} {row['doc_id']} {row['question_id']}"
        scores.setdefault((row["benchmark"], row["settings_hash"]), {})[question_key] = row["score"]
    return scores


def resolve_checkpoint_version(lake: Lake, name_or_prefix: str) -> str:
    """The checkpoint version that a stage's name (its current checkpoint) or the beginning of a version means. Raises
    `BenchmarkError` for none or several."""
    if name_or_prefix in TRAINING_STAGES:
        from mvl_training.runs.stage_run import load_current_checkpoint

        return load_current_checkpoint(name_or_prefix).version
    versions = {(row["checkpoint_version"], row["checkpoint"]) for row in lake.get_table(TABLE).iter_rows()}
    matches = sorted(version for version, _ in versions if version.startswith(name_or_prefix))
    if len(matches) != 1:
        version_list = ", ".join(f"{version[:8]} ({stage})" for version, stage in sorted(versions))
        raise BenchmarkError(
            f"{'no checkpoint' if not matches else 'more than one checkpoint'} that was asked begins with {name_or_prefix!r}",
            hint=f"asked were {version_list}" if versions else "materialise one of `evaluation/<suite>` first",
        )
    return matches[0]
