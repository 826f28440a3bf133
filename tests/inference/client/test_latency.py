"""How long requests take: when one is late, and when it is given up."""

from __future__ import annotations

from mvl_assets.inference.client.latency import MIN_SAMPLES, MIN_TIMEOUT_S, LatencyTracker


def build_tracker(n_replies: int, latency_s: float, tokens: int = 10, max_tokens: int = 100) -> LatencyTracker:
    tracker = LatencyTracker()
    for _ in range(n_replies):
        tracker.observe(latency_s, tokens, max_tokens)
    return tracker


def test_a_few_replies_change_no_timeout() -> None:
    tracker = build_tracker(MIN_SAMPLES - 1, 1.0)
    assert tracker.straggler_after_s is None
    assert tracker.compute_timeout_s(100.0, client_timeouts=0) == 100.0


def test_the_timeout_covers_the_longest_answer_and_doubles_per_attempt() -> None:
    tracker = build_tracker(MIN_SAMPLES, 1.0)
    assert tracker.compute_timeout_s(1000.0, client_timeouts=0) == 20.0
    assert tracker.compute_timeout_s(1000.0, client_timeouts=1) == 40.0
    assert tracker.compute_timeout_s(30.0, client_timeouts=1) == 30.0
    assert build_tracker(MIN_SAMPLES, 0.001).compute_timeout_s(1000.0, client_timeouts=0) == MIN_TIMEOUT_S


def test_one_slow_reply_counts_and_decays() -> None:
    tracker = build_tracker(MIN_SAMPLES, 1.0)
    usual = tracker.straggler_after_s
    tracker.observe(20.0, 10, 100)
    slow = tracker.straggler_after_s
    for _ in range(500):
        tracker.observe(1.0, 10, 100)
    assert usual is not None and slow is not None
    assert slow > 10 * usual
    assert tracker.straggler_after_s == usual
