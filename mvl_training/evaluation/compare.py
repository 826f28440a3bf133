"""Paired comparison of two checkpoints on the questions that both answered, and the command `mvl compare`.

Most of the noise is common to both, because the questions are the same; pairing removes it from the difference.
Interval: percentile bootstrap over questions. p-value: McNemar's exact test over the questions that only one of them
answered correctly (Q. McNemar, Psychometrika 12, 1947), for scores of 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import click
import numpy as np

from mvl_assets.common.tables import as_json, format_table
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.settings import load_settings
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.benchmark_run import ANSWERS_TABLE, TABLE
from mvl_training.evaluation.benchmarks.registry import BenchmarkError
from mvl_training.evaluation.clean_subset import read_item_ids, read_touched_items, record_current_touches
from mvl_training.evaluation.held_out import suite

INTERVAL_SEED = 20241206
N_RESAMPLES = 10_000
# Resamples in memory at a time.
RESAMPLE_CHUNK = 500


@dataclass(frozen=True, slots=True)
class CheckpointComparison:
    """Scores of two checkpoints on the questions that both were asked.

    Attributes:
        benchmark: Its name.
        n_questions: Questions in common.
        first_score: Mean of the first checkpoint, from 0 to 100.
        second_score: Mean of the second.
        difference: Second minus first.
        ci_low: Lower end of the difference's 95 % interval.
        ci_high: Its upper end.
        n_gained: Questions on which the second scored higher.
        n_lost: Questions on which it scored lower.
        p_value: McNemar's test; None where scores are not all 0 or 1.
        clean: The same over the questions that no training row of either checkpoint touches; None where that is not
            known, or none is left.
    """

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
    clean: CheckpointComparison | None = None


def compare_scores(
    benchmark: str, first_by_question: Mapping[str, float], second_by_question: Mapping[str, float]
) -> CheckpointComparison:
    """Compare scores (from 0 to 1) by question.

    Raises:
        BenchmarkError: The checkpoints have no question in common.
    """
    shared_keys = sorted(first_by_question.keys() & second_by_question.keys())
    if not shared_keys:
        raise BenchmarkError(
            f"no question of {benchmark} was asked of both checkpoints",
            hint="materialise the benchmark for both of them",
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
    """Return the 95 % percentile interval of the mean; a resample is drawn as the counts of each distinct value."""
    values, counts = np.unique(differences, return_counts=True)
    rng = np.random.default_rng(INTERVAL_SEED)
    means = [
        rng.multinomial(len(differences), counts / len(differences), size=RESAMPLE_CHUNK) @ values / len(differences)
        for _ in range(N_RESAMPLES // RESAMPLE_CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def compute_mcnemar_p_value(n_gained: int, n_lost: int) -> float:
    """Return the two-sided exact p-value: how likely a fair coin divides the changed questions at least as unevenly."""
    n_changed = n_gained + n_lost
    tail = sum(math.comb(n_changed, k) for k in range(min(n_gained, n_lost) + 1))
    return min(1.0, 2 * tail / 2**n_changed)


def compare_checkpoints(
    lake: Lake, first_version: str, second_version: str, benchmarks: Sequence[str] | None = None
) -> list[CheckpointComparison]:
    """Compare two checkpoint versions on each benchmark (of those named) that both were asked in the same way.

    Of several ways, the one with the most questions in common counts. Benchmarks without question scores are left out.

    Args:
        lake: The lake.
        first_version: Checkpoint version to compare with.
        second_version: Checkpoint version that is compared.
        benchmarks: Names of benchmarks; None for all.

    Raises:
        BenchmarkError: No benchmark is left.
    """
    item_ids: dict[str, str] = {}
    scores_by_version = {
        version: _read_question_scores(lake, version, benchmarks, item_ids)
        for version in (first_version, second_version)
    }
    touched_sets = [read_touched_items(lake, version) for version in (first_version, second_version)]
    touched_ids = None if None in touched_sets else {i for touched in touched_sets if touched for i in touched.kinds}
    comparisons: dict[str, CheckpointComparison] = {}
    for (benchmark, settings_hash), scores in scores_by_version[first_version].items():
        other_scores = scores_by_version[second_version].get((benchmark, settings_hash))
        if other_scores is None or not scores.keys() & other_scores.keys():
            continue
        comparison = compare_scores(benchmark, scores, other_scores)
        if touched_ids is not None:
            clean = {
                key: score for key, score in scores.items() if key in item_ids and item_ids[key] not in touched_ids
            }
            if clean.keys() & other_scores.keys():
                comparison = replace(comparison, clean=compare_scores(benchmark, clean, other_scores))
        if benchmark not in comparisons or comparison.n_questions > comparisons[benchmark].n_questions:
            comparisons[benchmark] = comparison
    if not comparisons:
        raise BenchmarkError(
            "no benchmark was asked of both checkpoints in the same way",
            hint="materialise `evaluation/held_out`, or a benchmark of a suite for both with the same settings",
        )
    return [comparisons[name] for name in sorted(comparisons)]


def _read_question_scores(
    lake: Lake, version: str, benchmarks: Sequence[str] | None, item_ids: dict[str, str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return scores by (benchmark, settings hash) and question; question keys contain the hash of the task's code.

    The held-out questions count as a benchmark; whether a server answered or this project's code makes no difference.
    `item_ids` takes the item of each question, as far as it is in the lake.
    """
    row_filter = f"{sql.equals('checkpoint_version', version)} AND score IS NOT NULL"
    if benchmarks:
        row_filter += f" AND {sql.is_in('benchmark', list(benchmarks))}"
    columns = ["benchmark", "settings_hash", "task", "task_hash", "question_id", "doc_id", "score"]
    scores: dict[tuple[str, str], dict[str, float]] = {}
    rows = list(lake.get_table(ANSWERS_TABLE).iter_rows(columns, row_filter))
    items = read_item_ids(lake, sorted({row["task"] for row in rows}))
    for row in rows:
        question_key = f"{row['task']} {row['task_hash']} {row['doc_id']} {row['question_id']}"
        if (row["task"], row["doc_id"]) in items:
            item_ids[question_key] = items[row["task"], row["doc_id"]]
        scores.setdefault((row["benchmark"], row["settings_hash"]), {})[question_key] = row["score"]
    if not benchmarks or suite.SUITE in benchmarks:
        version_filter = sql.equals("checkpoint_version", version)
        columns = ["settings_hash", "question_id", "sample_id", "correct"]
        for row in lake.get_table(suite.TABLE).iter_rows(columns, version_filter):
            item_ids[row["question_id"]] = row["sample_id"]
            scores.setdefault((suite.SUITE, row["settings_hash"]), {})[row["question_id"]] = float(row["correct"])
    return scores


def resolve_checkpoint_version(lake: Lake, name_or_prefix: str) -> str:
    """Return the checkpoint version that a training stage (its current checkpoint) or a prefix of a version means.

    Raises:
        BenchmarkError: No version begins with the prefix, or several do.
    """
    if name_or_prefix in TRAINING_STAGES:
        from mvl_training.runs.training_run import load_current_checkpoint

        return load_current_checkpoint(name_or_prefix).version
    columns = ["checkpoint_version", "checkpoint"]
    tables = (lake.get_table(TABLE), lake.get_table(suite.TABLE))
    versions = {(row["checkpoint_version"], row["checkpoint"]) for table in tables for row in table.iter_rows(columns)}
    matches = sorted(version for version, _ in versions if version.startswith(name_or_prefix))
    if len(matches) != 1:
        version_list = ", ".join(f"{version[:8]} ({stage})" for version, stage in sorted(versions))
        raise BenchmarkError(
            f"{'more than one' if matches else 'no'} checkpoint with benchmark scores begins with {name_or_prefix!r}",
            hint=f"evaluated checkpoints: {version_list}"
            if versions
            else "materialise one of `evaluation/<suite>` first",
        )
    return matches[0]


@click.command(name="compare")
@click.argument("first")
@click.argument("second")
@click.option("--benchmark", "benchmarks", multiple=True, metavar="NAME", help="Only this benchmark; may be repeated.")
@click.option("--json", "json_", is_flag=True, help="Print a JSON list.")
def compare_command(first: str, second: str, benchmarks: tuple[str, ...], json_: bool) -> None:
    """Compare two checkpoints on the benchmarks that both were asked, question by question.

    FIRST and SECOND are a training stage (its current checkpoint) or the beginning of a checkpoint's version.
    """
    lake = Lake(load_settings().lake_root)
    for stage in TRAINING_STAGES:
        if stage in (first, second):
            record_current_touches(lake, stage)
    comparisons = compare_checkpoints(
        lake, resolve_checkpoint_version(lake, first), resolve_checkpoint_version(lake, second), benchmarks or None
    )
    if json_:
        click.echo(as_json([asdict(comparison) for comparison in comparisons]))
        return
    columns = ["benchmark", "questions", first[:12], second[:12], "difference (95 %)", "p (McNemar)"]
    click.echo(format_table("scores from 0 to 100", columns, [_build_row(comparison) for comparison in comparisons]))
    clean = [comparison.clean for comparison in comparisons if comparison.clean is not None]
    if clean:
        click.echo(format_table("clean: no training row touches the question", columns, [_build_row(c) for c in clean]))


def _build_row(comparison: CheckpointComparison) -> list[object]:
    return [
        comparison.benchmark,
        comparison.n_questions,
        f"{comparison.first_score:.1f}",
        f"{comparison.second_score:.1f}",
        f"{comparison.difference:+.1f} ({comparison.ci_low:+.1f} to {comparison.ci_high:+.1f})",
        comparison.p_value,
    ]
