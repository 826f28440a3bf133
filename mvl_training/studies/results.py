"""What the arms of a study scored, question by question, and the report made of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mvl_assets.common.arm_address import ArmId, format_lake_address
from mvl_assets.common.batches import iter_batches
from mvl_assets.common.markdown import format_markdown_table
from mvl_assets.common.sample_facts import get_image_group_id
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.paper_protocol import DEFAULT_PROTOCOL, Protocol
from mvl_training.evaluation.clean_subset import read_touched_items
from mvl_training.evaluation.paired_statistics import compute_stratified_mean
from mvl_training.evaluation.question_scores import QuestionScore, read_question_scores
from mvl_training.studies.arms import open_source_lake
from mvl_training.studies.record import load_state
from mvl_training.studies.statistics import OVERALL, ArmPairs, Difference, adjust_differences, compare_arms, pair_arms
from mvl_training.studies.study import Study

ID_BATCH = 1024


@dataclass(frozen=True, slots=True)
class ArmQuestion:
    """The score of one question in one arm.

    Attributes:
        question: Its id, the same for every arm.
        stratum: Part of the benchmark that its score is a mean over.
        cluster: The image or film that it is about.
        is_clean: Whether no training row of this arm touches it; None where that is not known.
        score: From 0 to 1.
    """

    arm: str
    seed: int
    benchmark: str
    question: str
    stratum: str
    cluster: str
    is_clean: bool | None
    score: float


@dataclass(frozen=True, slots=True)
class ArmScore:
    """The scores of one arm on a benchmark, from 0 to 100: the mean over seeds, and their standard deviation."""

    benchmark: str
    arm: str
    n_seeds: int
    n_questions: int
    mean: float
    spread: float | None


@dataclass(frozen=True, slots=True)
class StudyReport:
    """The report of a study.

    Attributes:
        scores: By benchmark and arm.
        differences: From the baseline, by benchmark, and over their mean where there are several.
        clean_differences: The same over questions that no training row of either arm touches.
        missing: Arms that have not been evaluated.
    """

    study: Study
    scores: Sequence[ArmScore]
    differences: Sequence[Difference]
    clean_differences: Sequence[Difference]
    missing: Sequence[ArmId]


def read_scores(lake: Lake, study: Study) -> list[ArmQuestion]:
    """Return the scores of all arms that were evaluated.

    Questions of a benchmark are those that were asked in one way, by the study's protocol: of several the one with the
    most questions.
    """
    rows: list[ArmQuestion] = []
    for arm_id in study.list_runs():
        versions = set(load_state(arm_id).evaluation.values())
        for version in versions:
            root = open_source_lake(lake, study.get_lake(arm_id.arm)).root
            rows += _read_arm_scores(Lake(format_lake_address(root, arm_id)), arm_id, version, study.protocol)
    return rows


def _read_arm_scores(lake: Lake, arm_id: ArmId, version: str, protocol: Protocol) -> list[ArmQuestion]:
    item_ids: dict[str, str] = {}
    by_benchmark: dict[str, dict[str, QuestionScore]] = {}
    for key, scores in sorted(
        read_question_scores(lake, version, None, item_ids).items(), key=lambda item: item[0].settings_hash
    ):
        if key.protocol in (None, protocol) and len(scores) > len(by_benchmark.get(key.benchmark, ())):
            by_benchmark[key.benchmark] = scores
    groups = _read_image_groups(lake, set(item_ids.values()))
    touched = read_touched_items(lake, version)
    return [
        ArmQuestion(
            arm=arm_id.arm,
            seed=arm_id.seed,
            benchmark=benchmark,
            question=question,
            stratum=score.stratum,
            cluster=score.cluster or groups.get(item_ids.get(question, ""), question),
            is_clean=None if touched is None or question not in item_ids else item_ids[question] not in touched.kinds,
            score=score.score,
        )
        for benchmark, scores in by_benchmark.items()
        for question, score in scores.items()
    ]


def _read_image_groups(lake: Lake, sample_ids: Iterable[str]) -> dict[str, str]:
    """Return which samples show the same image or film."""
    return {
        row["sample_id"]: get_image_group_id(row["sample_id"], row["image_ids"] or [])
        for batch in iter_batches(iter(sorted(sample_ids)), ID_BATCH)
        for row in lake.get_table("samples").iter_rows(["sample_id", "image_ids"], sql.is_in("sample_id", batch))
    }


def build_report(study: Study, rows: Sequence[ArmQuestion]) -> StudyReport:
    """Return the report of scores."""
    evaluated = {(row.arm, row.seed) for row in rows}
    return StudyReport(
        study=study,
        scores=_compute_scores(study, rows),
        differences=_compute_differences(study, rows),
        clean_differences=_compute_differences(study, _select_clean(study, rows)),
        missing=[arm_id for arm_id in study.list_runs() if (arm_id.arm, arm_id.seed) not in evaluated],
    )


def _compute_scores(study: Study, rows: Sequence[ArmQuestion]) -> list[ArmScore]:
    by_cell: dict[tuple[str, str], dict[int, list[ArmQuestion]]] = {}
    for row in rows:
        by_cell.setdefault((row.benchmark, row.arm), {}).setdefault(row.seed, []).append(row)
    scores = []
    for benchmark in sorted({benchmark for benchmark, _ in by_cell}):
        for arm in study.arms:
            seeds = by_cell.get((benchmark, arm), {})
            means = [
                100 * compute_stratified_mean(np.array([q.score for q in questions]), [q.stratum for q in questions])
                for questions in seeds.values()
            ]
            if means:
                spread = statistics.stdev(means) if len(means) > 1 else None
                n_questions = max(map(len, seeds.values()))
                scores.append(ArmScore(benchmark, arm, len(means), n_questions, statistics.fmean(means), spread))
    return scores


def _select_clean(study: Study, rows: Sequence[ArmQuestion]) -> list[ArmQuestion]:
    """Return the scores of questions that are known, and clean, in every arm."""
    unclean = {(row.benchmark, row.question) for row in rows if not row.is_clean}
    return [row for row in rows if (row.benchmark, row.question) not in unclean] if unclean else []


def _compute_differences(study: Study, rows: Sequence[ArmQuestion]) -> list[Difference]:
    scores: dict[tuple[str, str], dict[int, dict[str, QuestionScore]]] = {}
    for row in rows:
        question_score = QuestionScore(row.score, row.stratum, row.cluster)
        scores.setdefault((row.benchmark, row.arm), {}).setdefault(row.seed, {})[row.question] = question_score
    benchmarks, differences = sorted({row.benchmark for row in rows}), []
    for arm in study.arms:
        if arm == study.baseline_arm:
            continue
        paired: list[ArmPairs] = []
        for benchmark in benchmarks:
            pairs = pair_arms(
                benchmark, scores.get((benchmark, arm), {}), scores.get((benchmark, study.baseline_arm), {})
            )
            if pairs is not None:
                paired.append(pairs)
                differences.append(compare_arms(benchmark, arm, [pairs]))
        if len(paired) > 1:
            differences.append(compare_arms(OVERALL, arm, paired))
    return adjust_differences(differences)


def render_report(report: StudyReport) -> str:
    """Return the report in Markdown."""
    study = report.study
    parts = [f"# Study {study.name}", study.description.strip()]
    parts.append(
        f"{len(study.arms)} arms, seeds {', '.join(map(str, study.seeds))}; baseline: {study.baseline_arm}."
        f" {describe_budget(study)}"
        + ("" if study.protocol == DEFAULT_PROTOCOL else f" Benchmarks are asked by `protocol: {study.protocol}`.")
    )
    if report.missing:
        parts.append(f"Not evaluated yet: {', '.join(arm_id.path for arm_id in report.missing)}.")
    if not report.scores:
        return "\n\n".join([part for part in parts if part]) + "\n"
    parts.append("Scores from 0 to 100: mean over seeds, and their standard deviation.")
    parts.append(format_markdown_table([build_score_row(score) for score in report.scores]))
    parts.append(
        f"Difference from {study.baseline_arm}, in points, with its 95 % interval over questions (paired, by image or"
        " film) and seeds. p after Holm, over all lines."
    )
    parts.append(format_markdown_table([build_difference_row(difference) for difference in report.differences]))
    parts.append("\n".join(f"- {describe_outcome(study, difference)}" for difference in report.differences))
    if report.clean_differences:
        parts.append("Over questions that no training row of any arm touches:")
        parts.append(format_markdown_table([build_difference_row(d) for d in report.clean_differences]))
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_budget(study: Study) -> str:
    """Return in a sentence what every arm is trained on."""
    parts = [f"{n:,} rows of {stage}" for stage, n in study.budget.samples.items()]
    parts += [f"{n:,} target tokens of {stage}" for stage, n in study.budget.target_tokens.items()]
    return (
        f"Every arm is trained on {', '.join(parts)}." if parts else "Every arm is trained on all rows of its mixtures."
    )


def build_score_row(score: ArmScore) -> Mapping[str, Any]:
    """Return a score as a row of a table."""
    spread = "" if score.spread is None else f" ± {score.spread:.1f}"
    return {
        "benchmark": score.benchmark,
        "arm": score.arm,
        "score": f"{score.mean:.1f}{spread}",
        "seeds": score.n_seeds,
        "questions": score.n_questions,
    }


def build_difference_row(difference: Difference) -> Mapping[str, Any]:
    """Return a difference as a row of a table."""
    return {
        "benchmark": difference.benchmark,
        "arm": difference.arm,
        "difference": f"{difference.difference:+.1f}",
        "95 %": f"{difference.ci_low:+.1f} to {difference.ci_high:+.1f}",
        "p": "one seed" if difference.adjusted_p_value is None else f"{difference.adjusted_p_value:.2g}",
        "questions": difference.n_questions,
        "images": difference.n_clusters,
    }


def describe_outcome(study: Study, difference: Difference) -> str:
    """Return in a sentence whether an arm is better or worse; within the noise neither is said."""
    names = f"{difference.arm} and {study.baseline_arm}"
    where = f"{difference.benchmark}: "
    if difference.is_settled:
        word = "better" if difference.difference > 0 else "worse"
        return (
            f"{where}{difference.arm} is {word} than {study.baseline_arm} by {abs(difference.difference):.1f} points."
        )
    if difference.adjusted_p_value is None:
        return f"{where}one seed does not tell {names} apart: run it with at least two more."
    if difference.difference == 0:
        return f"{where}no difference was measured between {names}."
    if difference.seeds_to_settle is None:
        return (
            f"{where}{names} do not differ beyond the noise, and more seeds alone would not settle a difference of"
            f" {abs(difference.difference):.1f} points: ask more questions."
        )
    if difference.seeds_to_settle <= difference.n_seeds:
        return f"{where}{names} do not differ beyond the noise once all lines are accounted for (Holm)."
    return (
        f"{where}{names} do not differ beyond the noise; if {difference.difference:+.1f} points are real,"
        f" {difference.seeds_to_settle} seeds would settle it."
    )


def report_to_dict(report: StudyReport) -> dict[str, Any]:
    """Return the report as plain data, for JSON."""
    return {
        "study": report.study.name,
        "baseline": report.study.baseline_arm,
        "scores": [asdict(score) for score in report.scores],
        "differences": [asdict(d) | {"is_settled": d.is_settled} for d in report.differences],
        "clean_differences": [asdict(d) | {"is_settled": d.is_settled} for d in report.clean_differences],
        "missing": [arm_id.path for arm_id in report.missing],
    }
