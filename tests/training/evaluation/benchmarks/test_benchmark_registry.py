"""The declared benchmarks, and scores from lmms-eval's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.errors import MvlError
from mvl_training.evaluation.benchmarks.registry import (
    LOCAL_SUITE,
    TASKS_DIR,
    Benchmark,
    BenchmarkError,
    compute_question_score,
    load_suites,
    parse_benchmark_result,
    read_stratum,
    read_suites,
)
from mvl_training.evaluation.lmms.judge_calls import UNJUDGED
from mvl_training.evaluation.lmms.run import count_questions


def _report(results: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """As `lmms.run` leaves it; lmms-eval 0.7.3 names scores `metric,filter`."""
    return {
        "results": results,
        "versions": dict.fromkeys(results, 1.0),
        "n-samples": {task: {"original": 900, "effective": 100} for task in results},
        "lmms_eval_version": "0.7.3",
        "task_hashes": {task: f"hash of {task}" for task in results},
        "question_counts": {task: {} for task in results},
        "unjudged": dict.fromkeys(results, 0),
        "bootstrap": {},
        **more,
    }


def test_the_papers_23_benchmarks_are_declared_with_their_final_scores() -> None:
    suites = load_suites()
    ours = (LOCAL_SUITE, "proxies")
    paper = {name: one for key, suite in suites.items() if key not in ours for name, one in suite.benchmarks.items()}
    assert [len(suite.benchmarks) for suite in suites.values()] == [8, 7, 8, 2, 3]
    assert not any(one.paper for key in ours for one in suites[key].benchmarks.values())
    assert all("one_vision" in one.paper for one in paper.values())
    assert paper["DocVQA"].paper == {"single_image": 93.8, "one_vision": 93.7}
    assert {name for name, one in paper.items() if one.judge} == {
        *("MM-Vet", "MathVerse", "MathVista", "WildVision", "LLaVA-Wilder"),
    }
    assert {name for name, one in paper.items() if one.metric is None} == {"MMBench", "MEGA-Bench", "EgoSchema"}


def test_proxies_name_the_benchmarks_without_public_answers_that_they_stand_for() -> None:
    suites = load_suites()
    by_name = {name: one for suite in suites.values() for name, one in suite.benchmarks.items()}
    proxies = {name: one.proxy_for for name, one in by_name.items() if one.proxy_for is not None}
    assert proxies == {"MMBench-Dev": "MMBench", "EgoSchema-Subset": "EgoSchema"}
    assert proxies.keys() == suites["proxies"].benchmarks.keys()
    assert all(by_name[name].metric is None for name in proxies.values())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: {about: A., benchmarks: {}}\na: {about: B., benchmarks: {}}\n", r"suites\.yaml:2: .*'a' is given twice"),
        ("a:\n  about: A.\n  benchmarks:\n    X: {tasks: [t], metric: m, scal: 100}\n", r"suites\.yaml:4: .*scal"),
        ("a:\n  about: A.\n  benchmarks:\n    X:\n      tasks: []\n      metric: m\n", r"suites\.yaml:5: "),
        ("a: [\n", r"suites\.yaml:2: "),
    ],
)
def test_a_mistake_in_the_declarations_names_its_line(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "suites.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MvlError, match=error):
        read_suites(file)


def test_no_benchmark_has_the_name_of_a_source() -> None:
    # A run of chosen sources makes the partitions that are named after them.
    assert not load_catalog().keys() & {name for suite in load_suites().values() for name in suite.benchmarks}


def test_every_local_benchmark_has_a_task_file() -> None:
    tasks = {task for one in load_suites()[LOCAL_SUITE].benchmarks.values() for task in one.tasks}
    assert tasks == {file.stem for file in TASKS_DIR.glob("*.yaml")}


def test_a_share_is_scaled_to_percent_with_the_aggregates_own_standard_error() -> None:
    found = {"exact_match,none": 0.64, "exact_match_stderr,none": 0.02, "exact_match_stderr_clt,none": 0.03}
    result = parse_benchmark_result(Benchmark(tasks=("t",), metric="exact_match", scale=100), _report({"t": found}))
    assert (result.score, result.stderr, result.n_questions) == (64.0, 2.0, 100)
    assert result.task_scores[0].task_hash == "hash of t"


def test_the_clustered_standard_error_comes_first() -> None:
    found = {"s,none": 58.0, "s_stderr,none": "N/A", "s_stderr_clt,none": 0.01, "s_stderr_clustered,none": 0.025}
    result = parse_benchmark_result(Benchmark(tasks=("t",), metric="s"), _report({"t": found}))
    assert (result.score, result.stderr) == (58.0, 2.5)


def test_an_aggregate_without_a_formula_gets_the_bootstrap_error() -> None:
    result = {"acc,none": 0.5, "acc_stderr,none": "N/A", "acc_stderr_clt,none": "N/A"}
    report = _report({"t": result}, bootstrap={"t": {"acc": 0.015}})
    assert parse_benchmark_result(Benchmark(tasks=("t",), metric="acc", scale=100), report).stderr == 1.5
    assert (
        parse_benchmark_result(Benchmark(tasks=("t",), metric="acc", scale=100), _report({"t": result})).stderr is None
    )


def test_scores_of_several_tasks_are_averaged_with_their_errors() -> None:
    results = {f"t{n}": {"a,none": score, "a_stderr,none": 0.03} for n, score in enumerate((0.2, 0.4))}
    result = parse_benchmark_result(Benchmark(tasks=("t0", "t1"), metric="a", scale=100), _report(results))
    assert result.score == pytest.approx(30.0)
    assert result.stderr == pytest.approx(3 / 2**0.5)
    assert result.n_questions == 200


def test_a_score_given_as_text_is_parsed_and_a_submission_has_no_score() -> None:
    assert (
        parse_benchmark_result(Benchmark(tasks=("t",), metric="j"), _report({"t": {"j,none": "67.60"}})).score == 67.6
    )
    nothing = parse_benchmark_result(Benchmark(tasks=("t",), metric=None), _report({"t": {"submission,none": None}}))
    assert (nothing.score, nothing.stderr, nothing.n_questions) == (None, None, 100)


def test_only_questions_of_the_metric_are_counted() -> None:
    result = {"seed_image,none": 0.7, "seed_video,none": 0.5}
    report = _report(
        {"seedbench": result}, question_counts={"seedbench": {"seed_all": 100, "seed_image": 80, "seed_video": 20}}
    )
    several = {**load_suites()["knowledge"].benchmarks, **load_suites()["multi_image_and_video"].benchmarks}
    counts = {
        name: parse_benchmark_result(several[name], report).n_questions for name in ("SEED-Bench", "SEED-Bench-Video")
    }
    assert counts == {"SEED-Bench": 80, "SEED-Bench-Video": 20}


def test_a_question_with_several_filters_is_counted_once() -> None:
    lines = [
        {"doc_id": n, "filter": f, "seed_all": 1, f"seed_{k}": 1}
        for n, k in enumerate(("image", "video", "image"))
        for f in "ab"
    ]
    result = count_questions(lines)
    assert (result["seed_all"], result["seed_image"], result["seed_video"]) == (3, 2, 1)


def test_a_missing_metric_is_named() -> None:
    with pytest.raises(BenchmarkError, match=r"no 'b,none' for t, only a,none"):
        parse_benchmark_result(Benchmark(tasks=("t",), metric="b"), _report({"t": {"a,none": 1.0}}))


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (1.0, 1.0),
        ({"score": 0, "question_id": 3}, 0.0),
        ({"correct": True}, 1.0),
        ({"pred": "b ", "answer": "B"}, 1.0),
        ({"pred_answer": "A", "answer": "C"}, 0.0),
        ({"pred": ["a"], "answer": "a"}, 1.0),
        ({"pred": ["a", "b"], "answer": "a"}, None),
        # MMMU: an option letter. MathVista: whether it was right.
        ({"id": "validation_Art_1", "question_type": "multiple-choice", "answer": "B", "parsed_pred": ["B"]}, 1.0),
        ({"id": "validation_Art_2", "question_type": "multiple-choice", "answer": "B", "parsed_pred": ["C"]}, 0.0),
        ({"question_id": "1", "answer": "7", "prediction": "7", "true_false": True}, 1.0),
        ({"question_id": "2", "answer": "7", "prediction": "8", "true_false": False}, 0.0),
        # EgoSchema: numbers of options.
        ({"pred": 2, "ground_truth": "2"}, 1.0),
        ({"pred": -1, "ground_truth": "2"}, 0.0),
        ("said", None),
    ],
)
def test_question_scores_are_parsed_from_all_record_forms(value: object, score: float | None) -> None:
    assert compute_question_score({"m": value}, Benchmark(tasks=("t",), metric="m")) == score
    assert compute_question_score({"m": value}, Benchmark(tasks=("t",), metric=None)) is None


@pytest.mark.parametrize(("by_itself", "score"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5), (3.0, None), ("N/A", None)])
def test_an_unknown_record_form_is_scored_by_the_tasks_aggregate(by_itself: object, score: float | None) -> None:
    record = {"id": "validation_Math_1", "question_type": "open", "answer": "7", "parsed_pred": [["7", 7.0]]}
    percent = Benchmark(tasks=("t",), metric="m", scale=100)
    assert compute_question_score({"m": record, "single_question_scores": {"m": by_itself}}, percent) == score


def test_an_answer_better_than_the_reference_counts_in_full_and_an_unjudged_one_not_at_all() -> None:
    wilder = load_suites()["documents"].benchmarks["LLaVA-Wilder"]
    better = {wilder.metric: {"scores": [8.0, 10.0]}, "single_question_scores": {wilder.metric: 125.0}}
    assert compute_question_score(better, wilder) == 1.25
    failed = {wilder.metric: {"scores": [-1, -1]}, "single_question_scores": {wilder.metric: 100.0}}
    assert compute_question_score(failed | {UNJUDGED: "APITimeoutError"}, wilder) is None


def test_one_unjudged_question_leaves_a_benchmark_without_a_score() -> None:
    report = _report({"t": {"j,none": 71.4, "j_stderr,none": 1.0}}, unjudged={"t": 2})
    result = parse_benchmark_result(Benchmark(tasks=("t",), metric="j", judge=True), report)
    assert (result.score, result.stderr, result.n_unjudged) == (None, None, 2)


def test_the_parts_of_a_mean_of_means_are_read_from_the_record() -> None:
    mlvu = load_suites()["multi_image_and_video"].benchmarks["MLVU"]
    assert read_stratum({mlvu.metric: {"task_type": "ego"}}, mlvu) == "ego"
    assert read_stratum({"m": 1.0}, Benchmark(tasks=("t",), metric="m")) is None
