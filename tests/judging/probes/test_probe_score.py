"""Detection, false alarm and their intervals."""

from __future__ import annotations

import pytest

from mvl_assets.judging.keep import list_thresholds
from mvl_assets.judging.probes.build import build_contrast_pairs
from mvl_assets.judging.probes.score import (
    JudgeResponse,
    PairResult,
    Share,
    compute_probe_score,
    compute_threshold_scores,
)

PAIR = build_contrast_pairs()[0]
YES, NO = JudgeResponse(True, 0.9, {"accuracy": True}), JudgeResponse(False, 0.3, {"accuracy": False})


def test_a_judge_that_always_says_the_same_detects_no_more_than_it_alarms():
    always_yes = compute_probe_score([PairResult(PAIR, YES, YES)] * 4)
    assert (always_yes.detection, always_yes.false_alarm, always_yes.ranked) == (Share(0, 4), Share(0, 4), Share(0, 4))
    always_no = compute_probe_score([PairResult(PAIR, NO, NO)] * 4)
    assert (always_no.detection, always_no.false_alarm) == (Share(4, 4), Share(4, 4))


def test_what_lacks_a_verdict_is_counted_apart_and_a_threshold_counts():
    results = [PairResult(PAIR, YES, NO), PairResult(PAIR, None, NO)]
    score = compute_probe_score(results)
    assert (score.n_pairs, score.n_unanswered) == (2, 1)
    assert (score.detection, score.false_alarm, score.ranked) == (Share(1, 1), Share(0, 1), Share(1, 1))
    assert compute_probe_score(results, min_p_yes=0.95).false_alarm == Share(1, 1)
    unknown = JudgeResponse(True, None, {"accuracy": True})
    assert compute_probe_score([PairResult(PAIR, unknown, unknown)], min_p_yes=0.5).false_alarm == Share(1, 1)
    assert compute_probe_score([PairResult(PAIR, unknown, unknown)]).ranked.value is None


def test_thresholds_show_what_the_keep_rule_would_accept():
    unsure = JudgeResponse(True, 0.7, {"accuracy": True})
    results = [PairResult(PAIR, YES, unsure), PairResult(PAIR, unsure, NO), PairResult(PAIR, None, NO)]
    thresholds = list_thresholds("all_yes and (matches_reference or (no_reference and p_yes >= 0.85))")
    scores = {score.min_p_yes: score for score in compute_threshold_scores(results, thresholds)}
    assert thresholds == [0.85] and list(scores) == [0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95]
    assert (scores[0.0].detection, scores[0.0].false_alarm, scores[0.0].good) == (Share(1, 2), Share(0, 2), Share(2, 3))
    assert (scores[0.85].detection, scores[0.85].false_alarm, scores[0.85].good) == (
        Share(2, 2),
        Share(1, 2),
        Share(1, 1),
    )
    unknown = JudgeResponse(True, None, {"accuracy": True})
    assert compute_threshold_scores([PairResult(PAIR, unknown, unknown)]) == [] == list_thresholds("p_yes >=")


def test_the_interval_is_wilsons():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 0 of 20.
    for count, n, interval in [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611))]:
        assert Share(count, n).interval == pytest.approx(interval, abs=1e-4)
    assert (Share(0, 0).value, Share(0, 0).interval) == (None, None)
