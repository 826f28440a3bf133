"""Statistics of paired differences against exact values and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest

from mvl_training.evaluation.paired_statistics import (
    adjust_p_values,
    compute_flip_p_value,
    compute_interval,
    compute_mcnemar_p_value,
    flip_differences,
    resample_differences,
)


def test_mcnemar_equals_the_sign_test_of_changed_questions() -> None:
    assert compute_mcnemar_p_value(0, 0) == 1.0
    assert compute_mcnemar_p_value(5, 5) == 1.0
    assert compute_mcnemar_p_value(6, 0) == compute_mcnemar_p_value(0, 6) == 2 / 2**6
    # scipy.stats.binomtest(15, 20).pvalue
    assert compute_mcnemar_p_value(15, 5) == pytest.approx(0.04138946533203125)
    assert compute_mcnemar_p_value(1100, 1000) == pytest.approx(0.0308, abs=1e-3)


def test_flipped_signs_approach_mcnemar_on_binary_scores() -> None:
    differences = np.array([1.0] * 15 + [-1.0] * 5 + [0.0] * 30)
    p_value = compute_flip_p_value(float(differences.mean()), flip_differences(differences))
    assert p_value == pytest.approx(compute_mcnemar_p_value(15, 5), abs=0.006)
    assert compute_flip_p_value(0.0, flip_differences(np.zeros(4))) == 1.0


def test_holm_is_the_published_procedure() -> None:
    # statsmodels.stats.multitest.multipletests(..., method="holm")
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_p_values([0.6, 0.9]) == [1.0, 1.0] and adjust_p_values([]) == []


def test_the_interval_of_clusters_covers_the_truth_where_that_of_questions_does_not() -> None:
    rng = np.random.default_rng(4)
    clusters = [f"c{n}" for n in range(20) for _ in range(6)]
    covered = {"clusters": 0, "questions": 0}
    for trial in range(40):
        differences = np.repeat(rng.choice([-0.4, 0.1, 0.6], 20), 6)
        for name, labels in (("clusters", clusters), ("questions", None)):
            low, high = compute_interval(resample_differences(differences, clusters=labels, seed_name=str(trial)))
            covered[name] += low <= 0.1 <= high
    assert covered["clusters"] >= 33 and covered["questions"] <= 28


def test_draws_of_two_names_are_independent_and_of_one_name_equal() -> None:
    differences = np.array([1.0, 0.0, -1.0, 1.0] * 25)
    first, again, other = (resample_differences(differences, seed_name=name) for name in ("a", "a", "b"))
    assert (first == again).all() and abs(float(np.corrcoef(first, other)[0, 1])) < 0.05
