"""Calibration of the judge against human labels: agreement, and the threshold of P(yes) that fits the labels best.

As in the paper (arXiv 2412.05237, appendix on filtering: 60 items, three annotators): Cohen's kappa between the model
and each annotator, between the annotators, and over the groups in which the model takes one annotator's place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import mean

from mvl_assets.errors import MvlError
from mvl_assets.judging.kappa import Confusion, compute_confusion
from mvl_assets.judging.labels import Label
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import JUDGED

N_FOLDS = 10
ID_BATCH_SIZE = 1000


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """One judged pair with its labels by annotator."""

    rewrite_id: str
    category: str
    all_yes: bool
    p_yes: float | None
    labels: Mapping[str, bool]

    @property
    def majority_label(self) -> bool | None:
        """The label of most annotators; None if they are tied."""
        good_votes = sum(self.labels.values())
        return None if 2 * good_votes == len(self.labels) else 2 * good_votes > len(self.labels)


@dataclass(frozen=True, slots=True)
class KeepThreshold:
    """`p_yes >= value` as a keep rule.

    Of the thresholds that keep at least `min_keep_rate` of the labelled pairs, it has the highest kappa with the
    majority label; ties go to the one that keeps most.

    Attributes:
        value: The threshold.
        min_keep_rate: The lowest share that a threshold may keep.
        keep_rate: The share of labelled pairs that it keeps.
        in_sample: Its agreement with the labels that it was chosen on.
        cross_validated: Its agreement with labels that the choice had not seen (ten folds); the one to trust.
    """

    value: float
    min_keep_rate: float
    keep_rate: float
    in_sample: Confusion
    cross_validated: Confusion


@dataclass(frozen=True, slots=True)
class Calibration:
    """Agreement of the judge with human labels.

    Attributes:
        n_pairs: Labelled pairs.
        n_tied: Those without a majority.
        n_unmatched_labels: Labels that belong to no judged row.
        judge_vs_majority: `all_yes` against the majority of labels.
        judge_vs_annotator: `all_yes` against each annotator.
        between_annotators: Each two annotators.
        leave_one_out_kappa: The mean kappa over the groups in which the model replaces one annotator; None with fewer
            than two annotators.
        by_category: `judge_vs_majority` by category.
        threshold: A suggestion; None where all labels or all probabilities are equal.
    """

    n_pairs: int
    n_tied: int
    n_unmatched_labels: int
    judge_vs_majority: Confusion
    judge_vs_annotator: Mapping[str, Confusion]
    between_annotators: Mapping[tuple[str, str], Confusion]
    leave_one_out_kappa: float | None
    by_category: Mapping[str, Confusion]
    threshold: KeepThreshold | None


def calibrate(lake: Lake, labels: Sequence[Label], min_keep_rate: float = 0.1) -> Calibration:
    """Compare the current rows of `judged/*` with labels.

    Args:
        lake: The lake.
        labels: The labels.
        min_keep_rate: The lowest share that a suggested threshold may keep.

    Raises:
        MvlError: No label belongs to a judged row.
    """
    labelled_pairs, n_unmatched_labels = load_labelled_pairs(lake, labels)
    if not labelled_pairs:
        raise MvlError(
            "none of the labelled rows is judged",
            hint="the sheet is from another lake, or the pairs were rewritten since; `mvl judge sample` draws others",
        )
    annotators = sorted({annotator for pair in labelled_pairs for annotator in pair.labels})
    judge_vs_annotator = {name: _compare_judge_with_annotator(labelled_pairs, name) for name in annotators}
    between_annotators = {(a, b): _compare_annotators(labelled_pairs, a, b) for a, b in combinations(annotators, 2)}
    decided_pairs = [(pair, pair.majority_label) for pair in labelled_pairs if pair.majority_label is not None]
    by_category: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for pair, is_good in decided_pairs:
        by_category[pair.category].append((pair.all_yes, is_good))
    scored_labels = [(pair.p_yes, good) for pair, good in decided_pairs if pair.p_yes is not None]
    return Calibration(
        n_pairs=len(labelled_pairs),
        n_tied=len(labelled_pairs) - len(decided_pairs),
        n_unmatched_labels=n_unmatched_labels,
        judge_vs_majority=compute_confusion((pair.all_yes, good) for pair, good in decided_pairs),
        judge_vs_annotator=judge_vs_annotator,
        between_annotators=between_annotators,
        leave_one_out_kappa=_compute_leave_one_out_kappa(annotators, judge_vs_annotator, between_annotators),
        by_category={name: compute_confusion(verdicts) for name, verdicts in sorted(by_category.items())},
        threshold=suggest_threshold(scored_labels, min_keep_rate),
    )


def load_labelled_pairs(lake: Lake, labels: Iterable[Label]) -> tuple[list[LabelledPair], int]:
    """Return the judged pairs that have labels, and how many labels match none. All pairs are in memory."""
    labels_by_row: dict[str, dict[str, bool]] = defaultdict(dict)
    for label in labels:
        labels_by_row[label.row_id][label.annotator] = label.is_good
    columns = ["judged_id", "rewrite_id", "category", "all_yes", "p_yes"]
    pairs_by_rewrite: dict[str, LabelledPair] = {}
    matched_ids: set[str] = set()
    for table_name in lake.list_tables(JUDGED.name):
        for ids in _iter_id_batches(sorted(labels_by_row)):
            condition = f"{sql.is_in('rewrite_id', ids)} OR {sql.is_in('judged_id', ids)}"
            for row in lake.get_table(table_name).iter_rows(columns, condition):
                row_ids = [row[key] for key in ("rewrite_id", "judged_id") if row[key] in labels_by_row]
                matched_ids.update(row_ids)
                votes = {annotator: is_good for key in row_ids for annotator, is_good in labels_by_row[key].items()}
                pairs_by_rewrite[row["rewrite_id"]] = LabelledPair(
                    row["rewrite_id"], row["category"], row["all_yes"], row["p_yes"], votes
                )
    n_unmatched_labels = sum(len(votes) for key, votes in labels_by_row.items() if key not in matched_ids)
    return sorted(pairs_by_rewrite.values(), key=lambda pair: pair.rewrite_id), n_unmatched_labels


def suggest_threshold(scored_labels: Collection[tuple[float, bool]], min_keep_rate: float) -> KeepThreshold | None:
    """Return the threshold for (P(yes), label) pairs; None where all labels or all probabilities are equal."""
    points = list(scored_labels)
    threshold = _find_best_threshold(points, min_keep_rate)
    if threshold is None:
        return None
    predictions: list[tuple[bool, bool]] = []
    for fold in range(N_FOLDS):
        training_points = [point for index, point in enumerate(points) if index % N_FOLDS != fold]
        fold_threshold = _find_best_threshold(training_points, min_keep_rate)
        predictions += [
            (fold_threshold is None or p >= fold_threshold, is_good) for p, is_good in points[fold::N_FOLDS]
        ]
    in_sample = compute_confusion((p >= threshold, good) for p, good in points)
    keep_rate = sum(p >= threshold for p, _ in points) / len(points)
    return KeepThreshold(threshold, min_keep_rate, keep_rate, in_sample, compute_confusion(predictions))


def _find_best_threshold(scored_labels: Sequence[tuple[float, bool]], min_keep_rate: float) -> float | None:
    """Return the best value, half-way between two neighbouring probabilities."""
    n_good_total = sum(is_good for _, is_good in scored_labels)
    if len({p for p, _ in scored_labels}) < 2 or n_good_total in (0, len(scored_labels)):
        return None
    ordered = sorted(scored_labels, reverse=True)
    best: tuple[float, int, float] | None = None
    n_kept_good = 0
    for n_kept, ((p, good), (next_p, _)) in enumerate(pairwise(ordered), 1):
        n_kept_good += good
        if p == next_p or n_kept < min_keep_rate * len(scored_labels):
            continue
        n_kept_bad = n_kept - n_kept_good
        agreement = Confusion(
            n_kept_good, n_kept_bad, n_good_total - n_kept_good, len(scored_labels) - n_good_total - n_kept_bad
        )
        candidate = (agreement.kappa or 0.0, n_kept, (p + next_p) / 2)
        best = candidate if best is None else max(best, candidate)
    return None if best is None else best[2]


def _compare_judge_with_annotator(labelled_pairs: Sequence[LabelledPair], annotator: str) -> Confusion:
    return compute_confusion(
        (pair.all_yes, pair.labels[annotator]) for pair in labelled_pairs if annotator in pair.labels
    )


def _compare_annotators(labelled_pairs: Sequence[LabelledPair], first: str, second: str) -> Confusion:
    return compute_confusion(
        (pair.labels[first], pair.labels[second])
        for pair in labelled_pairs
        if first in pair.labels and second in pair.labels
    )


def _compute_leave_one_out_kappa(
    annotators: Sequence[str],
    judge_vs_annotator: Mapping[str, Confusion],
    between_annotators: Mapping[tuple[str, str], Confusion],
) -> float | None:
    """Return the mean over groups, in each of which the model replaces an annotator, of the mean kappa of its pairs."""
    if len(annotators) < 2:
        return None
    group_kappas = []
    for left_out in annotators:
        kappas = [judge_vs_annotator[name].kappa for name in annotators if name != left_out]
        kappas += [agreement.kappa for names, agreement in between_annotators.items() if left_out not in names]
        defined_kappas = [kappa for kappa in kappas if kappa is not None]
        if defined_kappas:
            group_kappas.append(mean(defined_kappas))
    return mean(group_kappas) if group_kappas else None


def _iter_id_batches(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + ID_BATCH_SIZE] for start in range(0, len(ids), ID_BATCH_SIZE))
