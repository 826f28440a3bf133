"""Noise of questions and of seeds: what is inside it is never called a difference."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mvl_training.studies.plots import plot_report
from mvl_training.studies.results import ArmQuestion, build_report, describe_outcome, render_report
from mvl_training.studies.statistics import compute_t_quantile, count_seeds_to_settle
from tests.training.studies.drawn_scores import STUDY, draw_rows


def test_a_clear_difference_is_named_and_its_interval_leaves_out_0() -> None:
    report = build_report(STUDY, draw_rows(0.15))
    (difference,) = report.differences
    assert difference.is_settled and 0 < difference.ci_low < difference.difference < difference.ci_high
    assert "other is better than base" in describe_outcome(STUDY, difference)
    assert [(s.arm, s.n_seeds, s.n_questions) for s in report.scores] == [("base", 3, 400), ("other", 3, 400)]
    assert report.clean_differences == [], "all questions are clean: the same figures would stand there twice"


def test_the_report_is_drawn() -> None:
    with Image.open(io.BytesIO(plot_report(build_report(STUDY, draw_rows(0.15))))) as image:
        assert image.width == 720 and len(set(image.convert("L").tobytes())) > 10


def test_noise_of_seeds_hides_what_the_questions_alone_would_call_a_difference() -> None:
    quiet = build_report(STUDY, draw_rows(0.06)).differences[0]
    noisy = build_report(STUDY, draw_rows(0.06, seed_noise=0.06)).differences[0]
    assert quiet.is_settled and not noisy.is_settled
    assert noisy.ci_high - noisy.ci_low > 2 * (quiet.ci_high - quiet.ci_low)
    assert noisy.seeds_to_settle is None or noisy.seeds_to_settle > 3
    outcome = describe_outcome(STUDY, noisy)
    assert "better" not in outcome and "worse" not in outcome


def test_questions_about_one_image_are_one_piece_of_evidence() -> None:
    apart = build_report(STUDY, draw_rows(0.1)).differences[0]
    together = build_report(STUDY, draw_rows(0.1, per_image=10)).differences[0]
    assert (apart.n_clusters, together.n_clusters) == (400, 40)
    assert together.ci_high - together.ci_low > 1.5 * (apart.ci_high - apart.ci_low)


def test_one_seed_names_no_winner() -> None:
    (difference,) = build_report(STUDY, draw_rows(0.3, seeds=1)).differences
    assert difference.p_value is None and not difference.is_settled
    assert "one seed does not tell" in describe_outcome(STUDY, difference)


def test_the_report_has_clean_questions_apart_and_says_what_is_missing() -> None:
    rows = [
        ArmQuestion(r.arm, r.seed, r.benchmark, r.question, "", r.cluster, r.question not in ("q0", "q1"), r.score)
        for r in draw_rows(0.1, seeds=2)
    ]
    report = build_report(STUDY, rows)
    assert [d.n_questions for d in report.clean_differences] == [398]
    assert [arm_id.path for arm_id in report.missing] == ["s/base/2", "s/other/2"]
    text = render_report(report)
    assert "no training row of any arm touches" in text and "Not evaluated yet: s/base/2, s/other/2" in text


def test_the_mean_of_several_benchmarks_has_a_line_of_its_own_and_holm_counts_all_lines() -> None:
    rows = draw_rows(0.1)
    rows += [ArmQuestion(r.arm, r.seed, "c", r.question, "", r.cluster, None, r.score) for r in rows]
    differences = build_report(STUDY, rows).differences
    assert [d.benchmark for d in differences] == ["b", "c", "mean of all"]
    assert differences[2].difference == pytest.approx(differences[0].difference)
    assert all(d.adjusted_p_value >= d.p_value for d in differences if d.p_value and d.adjusted_p_value)


def test_seeds_to_settle_follow_from_the_spread() -> None:
    assert count_seeds_to_settle(0.02, 0.0, 0.01) == 4  # t(3) * 0.01 / 2 = 0.0158; t(2) * 0.01 / 1.73 = 0.0248
    assert count_seeds_to_settle(0.02, 0.02**2, 0.0) is None
    assert count_seeds_to_settle(0.0, 0.0, 0.1) is None


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (30, 2.042)])
def test_quantiles_of_students_t(degrees: int, quantile: float) -> None:
    assert compute_t_quantile(degrees) == pytest.approx(quantile, rel=0.01)
    draws = np.random.default_rng(0).standard_t(degrees, size=400_000)
    assert np.quantile(draws, 0.975) == pytest.approx(quantile, rel=0.03)
