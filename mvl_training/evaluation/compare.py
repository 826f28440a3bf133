"""Paired comparison of two checkpoints on the questions that both answered, and the command `mvl compare`.

Interval: percentile bootstrap over questions. p-value: McNemar's exact test over the questions that only one of them
answered correctly, where scores are 0 and 1 and questions are independent; else flipped signs. `paired_statistics` has
both, and what tasks and questions about one video change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import get_args

import click
import numpy as np

from mvl_assets.common.tables import as_json, format_table
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.benchmark_run import TABLE
from mvl_training.evaluation.benchmarks.paper_protocol import Protocol
from mvl_training.evaluation.benchmarks.registry import BenchmarkError
from mvl_training.evaluation.clean_subset import read_touched_items, record_current_touches
from mvl_training.evaluation.held_out import suite
from mvl_training.evaluation.paired_statistics import (
    adjust_p_values,
    compute_flip_p_value,
    compute_interval,
    compute_mcnemar_p_value,
    compute_stratified_mean,
    flip_differences,
    resample_differences,
)
from mvl_training.evaluation.question_scores import QuestionScore, ScoreKey, read_question_scores
from mvl_training.runs.training_run import StageError, load_current_checkpoint, load_kept_checkpoint

OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class CheckpointComparison:
    """Scores of two checkpoints on the questions that both were asked.

    Attributes:
        benchmark: Its name, or `overall`.
        protocol: By which it was asked of both; None for the held-out questions, which are asked in one way.
        n_questions: Questions in common.
        first_score: Score of the first checkpoint, from 0 to 100 (above 100 where a judge compares it with a reference
            that it surpasses): the mean, of several tasks the mean of their means.
        second_score: That of the second.
        difference: Second minus first.
        ci_low: Lower end of the difference's 95 % interval.
        ci_high: Its upper end.
        n_gained: Questions on which the second scored higher.
        n_lost: Questions on which it scored lower.
        p_value: How likely so large a difference is if neither is better.
        adjusted_p_value: Holm's, over the benchmarks that are compared together; None for `overall`.
        clean: The same over the questions that no training row of either checkpoint touches; None where that is not
            known, or none is left.
    """

    benchmark: str
    protocol: Protocol | None
    n_questions: int
    first_score: float
    second_score: float
    difference: float
    ci_low: float
    ci_high: float
    n_gained: int
    n_lost: int
    p_value: float
    adjusted_p_value: float | None = None
    clean: CheckpointComparison | None = None


@dataclass(frozen=True)
class PairedScores:
    """Scores of the questions of one benchmark that both checkpoints were asked; at least one.

    Attributes:
        benchmark: Its name.
        protocol: By which it was asked; None for the held-out questions.
        keys: The questions.
        first: Scores of the first checkpoint.
        second: Scores of the second.
        strata: Stratum of each question.
        clusters: Cluster of each question.
    """

    benchmark: str
    protocol: Protocol | None
    keys: Sequence[str]
    first: np.ndarray
    second: np.ndarray
    strata: Sequence[str]
    clusters: Sequence[str]

    @property
    def differences(self) -> np.ndarray:
        """Second minus first, by question."""
        return self.second - self.first

    @property
    def first_score(self) -> float:
        return compute_stratified_mean(self.first, self.strata)

    @property
    def second_score(self) -> float:
        return compute_stratified_mean(self.second, self.strata)

    @property
    def n_gained(self) -> int:
        return int((self.differences > 0).sum())

    @property
    def n_lost(self) -> int:
        return int((self.differences < 0).sum())

    @cached_property
    def resampled(self) -> np.ndarray:
        """Bootstrap draws of the difference."""
        return self._draw(resample_differences)

    @cached_property
    def flipped(self) -> np.ndarray:
        """Draws of the difference if neither were better."""
        return self._draw(flip_differences)

    def _draw(self, draw: Callable[..., np.ndarray]) -> np.ndarray:
        clusters = None if self._is_independent else self.clusters
        return draw(self.differences, strata=self.strata, clusters=clusters, seed_name=self.benchmark)

    @property
    def _is_independent(self) -> bool:
        return len(set(self.clusters)) == len(self.clusters)

    def compute_p_value(self) -> float:
        """Return the p-value of the difference."""
        is_binary = bool(np.isin(self.first, (0, 1)).all() and np.isin(self.second, (0, 1)).all())
        if is_binary and self._is_independent and len(set(self.strata)) == 1:
            return compute_mcnemar_p_value(self.n_gained, self.n_lost)
        return compute_flip_p_value(self.second_score - self.first_score, self.flipped)


def pair_scores(
    benchmark: str,
    protocol: Protocol | None,
    first_by_question: Mapping[str, QuestionScore | float],
    second_by_question: Mapping[str, QuestionScore | float],
) -> PairedScores:
    """Pair scores by question; strata and clusters are those of the first.

    Raises:
        BenchmarkError: The checkpoints have no question in common.
    """
    keys = sorted(first_by_question.keys() & second_by_question.keys())
    if not keys:
        raise BenchmarkError(
            f"no question of {benchmark} was asked of both checkpoints",
            hint="materialise the benchmark for both of them",
        )
    first, second = (
        [score if isinstance(score, QuestionScore) else QuestionScore(score) for score in map(scores.__getitem__, keys)]
        for scores in (first_by_question, second_by_question)
    )
    return PairedScores(
        benchmark,
        protocol,
        keys,
        np.array([question.score for question in first]),
        np.array([question.score for question in second]),
        [question.stratum for question in first],
        [question.cluster or key for key, question in zip(keys, first, strict=True)],
    )


def compare_scores(paired: PairedScores) -> CheckpointComparison:
    """Compare the scores of one benchmark."""
    ci_low, ci_high = compute_interval(paired.resampled)
    return CheckpointComparison(
        benchmark=paired.benchmark,
        protocol=paired.protocol,
        n_questions=len(paired.keys),
        first_score=100 * paired.first_score,
        second_score=100 * paired.second_score,
        difference=100 * (paired.second_score - paired.first_score),
        ci_low=100 * ci_low,
        ci_high=100 * ci_high,
        n_gained=paired.n_gained,
        n_lost=paired.n_lost,
        p_value=paired.compute_p_value(),
    )


def compare_overall(paired_scores: Sequence[PairedScores]) -> CheckpointComparison:
    """Compare the mean score over benchmarks, each of which counts alike."""
    ci_low, ci_high = compute_interval(np.mean([paired.resampled for paired in paired_scores], axis=0))
    first, second = (
        float(np.mean([getattr(paired, name) for paired in paired_scores])) for name in ("first_score", "second_score")
    )
    return CheckpointComparison(
        benchmark=OVERALL,
        protocol=next((paired.protocol for paired in paired_scores if paired.protocol), None),
        n_questions=sum(len(paired.keys) for paired in paired_scores),
        first_score=100 * first,
        second_score=100 * second,
        difference=100 * (second - first),
        ci_low=100 * ci_low,
        ci_high=100 * ci_high,
        n_gained=sum(paired.n_gained for paired in paired_scores),
        n_lost=sum(paired.n_lost for paired in paired_scores),
        p_value=compute_flip_p_value(second - first, np.mean([paired.flipped for paired in paired_scores], axis=0)),
    )


def adjust_comparisons(comparisons: Sequence[CheckpointComparison]) -> list[CheckpointComparison]:
    """Return the comparisons with Holm's p-values over all of them."""
    adjusted = adjust_p_values([comparison.p_value for comparison in comparisons])
    return [replace(c, adjusted_p_value=p_value) for c, p_value in zip(comparisons, adjusted, strict=True)]


def compare_checkpoints(
    lake: Lake,
    first_version: str,
    second_version: str,
    benchmarks: Sequence[str] | None = None,
    protocol: Protocol | None = None,
) -> list[CheckpointComparison]:
    """Compare two checkpoint versions on each benchmark (of those named) that both were asked in the same way.

    A comparison is of one protocol. Of several ways that it was asked in, the one with the most questions in common
    counts. Benchmarks without question scores are left out. Of two and more benchmarks the last line is their mean,
    `overall`.

    Args:
        lake: The lake.
        first_version: Checkpoint version to compare with.
        second_version: Checkpoint version that is compared.
        benchmarks: Names of benchmarks; None for all.
        protocol: Leave out benchmarks that were asked by another; None where both were asked by one alone.

    Raises:
        BenchmarkError: No benchmark is left, or benchmarks were asked by two protocols and none is named.
    """
    item_ids: dict[str, str] = {}
    paired_scores = read_paired_scores(lake, first_version, second_version, benchmarks, protocol, item_ids)
    touched_sets = [read_touched_items(lake, version) for version in (first_version, second_version)]
    clean_scores: list[PairedScores] = []
    if None not in touched_sets:
        touched_ids = {item_id for touched in touched_sets if touched for item_id in touched.kinds}
        clean_scores = [
            clean for paired in paired_scores if (clean := _select_clean(paired, item_ids, touched_ids)) is not None
        ]
    clean_by_benchmark = {clean.benchmark: clean for clean in _compare_all(clean_scores)}
    return [
        replace(comparison, clean=clean_by_benchmark.get(comparison.benchmark))
        for comparison in _compare_all(paired_scores)
    ]


def _compare_all(paired_scores: Sequence[PairedScores]) -> list[CheckpointComparison]:
    comparisons = adjust_comparisons([compare_scores(paired) for paired in paired_scores])
    return [*comparisons, compare_overall(paired_scores)] if len(paired_scores) > 1 else comparisons


def _select_clean(paired: PairedScores, item_ids: Mapping[str, str], touched_ids: set[str]) -> PairedScores | None:
    """Return the questions whose item is known and not touched; None if there are none."""
    indices = [i for i, key in enumerate(paired.keys) if key in item_ids and item_ids[key] not in touched_ids]
    if not indices:
        return None
    return PairedScores(
        paired.benchmark,
        paired.protocol,
        [paired.keys[i] for i in indices],
        paired.first[indices],
        paired.second[indices],
        [paired.strata[i] for i in indices],
        [paired.clusters[i] for i in indices],
    )


def read_paired_scores(
    lake: Lake,
    first_version: str,
    second_version: str,
    benchmarks: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    item_ids: dict[str, str] | None = None,
) -> list[PairedScores]:
    """Return the scores of two checkpoints on each benchmark that both were asked in the same way, by its name.

    Args:
        lake: The lake.
        first_version: Checkpoint version to compare with.
        second_version: Checkpoint version that is compared.
        benchmarks: Names of benchmarks; None for all.
        protocol: Leave out benchmarks that were asked by another; None where both were asked by one alone.
        item_ids: Takes the item of each question, as far as it is in the lake.

    Raises:
        BenchmarkError: No benchmark is left, or benchmarks were asked by two protocols and none is named.
    """
    first, second = (
        read_question_scores(lake, version, benchmarks, {} if item_ids is None else item_ids)
        for version in (first_version, second_version)
    )
    best: dict[tuple[str, Protocol | None], PairedScores] = {}
    for key in sorted(first.keys() & second.keys(), key=lambda key: (key.benchmark, key.settings_hash)):
        is_other = None not in (protocol, key.protocol) and protocol != key.protocol
        if is_other or not first[key].keys() & second[key].keys():
            continue
        paired = pair_scores(key.benchmark, key.protocol, first[key], second[key])
        former = best.get((key.benchmark, key.protocol))
        if former is None or len(paired.keys) > len(former.keys):
            best[key.benchmark, key.protocol] = paired
    # Held-out questions, which every protocol leaves as they are, do not answer for benchmarks asked by another one.
    has_benchmarks = any(key.protocol for key in (*first, *second))
    is_missing = protocol is not None and protocol not in {paired.protocol for paired in best.values()}
    if not best or (is_missing and has_benchmarks):
        by_protocol = f" by protocol {protocol}" if protocol else ""
        raise BenchmarkError(
            f"no benchmark was asked of both checkpoints in the same way{by_protocol}; the first was asked"
            f" {_describe_askings(first)}, the second {_describe_askings(second)}",
            hint="materialise `evaluation/held_out`, or a benchmark of a suite for both with the same settings",
        )
    if len({paired.protocol for paired in best.values()} - {None}) > 1:
        raise BenchmarkError(
            "both checkpoints were asked by two protocols, whose scores are not comparable:"
            f" {_describe_askings(best.values())}",
            hint="name one of them: --protocol default, or --protocol paper",
        )
    return sorted(best.values(), key=lambda paired: paired.benchmark)


def _describe_askings(askings: Iterable[ScoreKey | PairedScores]) -> str:
    """Return which benchmarks were asked, with the protocols of each."""
    protocols: dict[str, set[str]] = {}
    for asking in askings:
        protocols.setdefault(asking.benchmark, set()).update({asking.protocol} if asking.protocol else ())
    described = [f"{name} ({', '.join(sorted(by))})" if by else name for name, by in sorted(protocols.items())]
    return ", ".join(described) or "nothing"


def resolve_checkpoint_version(lake: Lake, name_or_prefix: str) -> str:
    """Return the checkpoint version that is meant.

    Args:
        lake: The lake.
        name_or_prefix: A training stage, for its current checkpoint; one that was kept on the way to it, such as
            `one_vision/step-00000120`; or the beginning of a version.

    Raises:
        BenchmarkError: No version begins with the prefix, or several do.
        StageError: The stage has no checkpoint, or this one was not kept.
    """
    stage, _, folder_name = name_or_prefix.partition("/")
    if stage in TRAINING_STAGES:
        return (load_kept_checkpoint(stage, folder_name) if folder_name else load_current_checkpoint(stage)).version
    columns = ["checkpoint_version", "checkpoint"]
    tables = (lake.get_table(TABLE), lake.get_table(suite.TABLE))
    versions = {(row["checkpoint_version"], row["checkpoint"]) for table in tables for row in table.iter_rows(columns)}
    matches = sorted(version for version, _ in versions if version.startswith(name_or_prefix))
    if len(matches) != 1:
        current = _list_current_versions()
        version_list = ", ".join(
            f"{version[:8]} ({name}{', current' if version in current else ''})" for version, name in sorted(versions)
        )
        raise BenchmarkError(
            f"{'more than one' if matches else 'no'} checkpoint with benchmark scores begins with {name_or_prefix!r}",
            hint=f"evaluated checkpoints: {version_list}"
            if versions
            else "materialise one of `evaluation/<suite>` first",
        )
    return matches[0]


def _list_current_versions() -> set[str]:
    versions = set()
    for stage in TRAINING_STAGES:
        with suppress(StageError):
            versions.add(load_current_checkpoint(stage).version)
    return versions


@click.command(name="compare")
@click.argument("first")
@click.argument("second")
@click.option("--benchmark", "benchmarks", multiple=True, metavar="NAME", help="Only this benchmark; may be repeated.")
@click.option(
    "--protocol",
    type=click.Choice(get_args(Protocol)),
    help="Leave out benchmarks that were asked by the other; needed where both checkpoints were asked by two.",
)
@click.option("--json", "json_", is_flag=True, help="Print a JSON list.")
def compare_command(
    first: str, second: str, benchmarks: tuple[str, ...], protocol: Protocol | None, json_: bool
) -> None:
    """Compare two checkpoints on the benchmarks that both were asked, question by question.

    FIRST and SECOND are a training stage (its current checkpoint), one that this was kept on the way to
    (`one_vision/step-00000120`), or the beginning of a checkpoint's version.
    """
    lake = Lake(load_settings().lake_root)
    for stage in TRAINING_STAGES:
        if stage in (first, second):
            record_current_touches(lake, stage)
    first_version, second_version = (resolve_checkpoint_version(lake, name) for name in (first, second))
    comparisons = compare_checkpoints(lake, first_version, second_version, benchmarks or None, protocol)
    if json_:
        click.echo(as_json([asdict(comparison) for comparison in comparisons]))
        return
    names = [name if name.startswith(TRAINING_STAGES) else name[:12] for name in (first, second)]
    columns = ["benchmark", "protocol", "questions", *names, "difference (95 %)", "p", "p (Holm)"]
    click.echo(format_table("scores from 0 to 100", columns, [_build_row(comparison) for comparison in comparisons]))
    clean = [comparison.clean for comparison in comparisons if comparison.clean is not None]
    if clean:
        click.echo(format_table("clean: no training row touches the question", columns, [_build_row(c) for c in clean]))


def _build_row(comparison: CheckpointComparison) -> list[object]:
    return [
        comparison.benchmark,
        comparison.protocol,
        comparison.n_questions,
        f"{comparison.first_score:.1f}",
        f"{comparison.second_score:.1f}",
        f"{comparison.difference:+.1f} ({comparison.ci_low:+.1f} to {comparison.ci_high:+.1f})",
        f"{comparison.p_value:.2g}",
        "" if comparison.adjusted_p_value is None else f"{comparison.adjusted_p_value:.2g}",
    ]
