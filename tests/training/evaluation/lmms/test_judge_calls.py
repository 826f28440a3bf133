"""A question is scored only if the last reply of its judge holds a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mvl_training.evaluation.benchmarks.registry import load_suites
from mvl_training.evaluation.lmms.judge_calls import UNJUDGED, JudgeCalls


def _score(calls: JudgeCalls, replies: Iterator[str | Exception]) -> Callable[..., Any]:
    """A task's function in the manner of lmms-eval's: it asks until there is a reply, then scores what there is."""

    def ask() -> str:
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    judge = calls.observe_call(ask, lambda reply: reply)

    def process_results(doc: Any, results: Any) -> dict[str, Any]:
        for _ in range(3):
            try:
                return {"m": {"score": float(judge())}}
            except (ValueError, TimeoutError):
                continue
        return {"m": {"score": 0.0}}

    return calls.check_verdicts(process_results)


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        (["0.5"], None),
        ([TimeoutError("slow"), "", "1"], None),
        ([TimeoutError("slow")] * 3, "TimeoutError: slow"),
        (["", "", ""], "the judge's reply is empty"),
        (["no idea"] * 3, "the judge's reply holds no verdict: no idea"),
    ],
)
def test_the_last_reply_decides(replies: list[str | Exception], reason: str | None) -> None:
    metrics = _score(JudgeCalls(r"\d"), iter(replies))({}, [])
    assert metrics.get(UNJUDGED) == reason


def test_a_question_that_needs_no_judge_is_judged_and_threads_do_not_mix() -> None:
    calls = JudgeCalls(r"\d")
    assert calls.check_verdicts(lambda doc, results: {"m": 1.0})({}, []) == {"m": 1.0}
    good, bad = (_score(calls, iter([reply] * 300)) for reply in ("1", ""))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda n: UNJUDGED in (bad if n % 2 else good)({}, []), range(100)))
    assert results == [bool(n % 2) for n in range(100)]


@pytest.mark.parametrize(
    ("name", "verdicts", "others"),
    [
        ("MM-Vet", ["0.5", "1.0", "0 because", "1"], ["Correctness: 0.5", "I cannot", "2.0"]),
        ("LLaVA-Wilder", ["10 7.5\nThe first", "10 10"], ["Scores: 10 7", "8, 9", "I cannot"]),
        ("WildVision", ["My final verdict is tie: [[A=B]]", "x [[B>>A]]"], ["A is better", "[[C]]"]),
        ("MathVerse", ["1", "0", "Judgement: 1"], ["Correct", "unclear"]),
    ],
)
def test_verdicts_are_what_the_tasks_read(name: str, verdicts: list[str], others: list[str]) -> None:
    (benchmark,) = [suite.benchmarks[name] for suite in load_suites().values() if name in suite.benchmarks]
    assert benchmark.judge
    calls = JudgeCalls(benchmark.verdict)
    for reply, is_unjudged in [*((v, False) for v in verdicts), *((o, True) for o in others)]:
        judge = calls.observe_call(lambda reply=reply: reply, lambda text: text)
        metrics = calls.check_verdicts(lambda doc, results, judge=judge: {"m": judge()})({}, [])
        assert (UNJUDGED in metrics) == is_unjudged, reply
