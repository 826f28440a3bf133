"""Comparison of two checkpoints: statistics, and the pairing of stored answers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.benchmark_run import ANSWERS_TABLE, TABLE
from mvl_training.evaluation.benchmarks.registry import BenchmarkError
from mvl_training.evaluation.compare import (
    CheckpointComparison,
    compare_checkpoints,
    compare_command,
    compare_scores,
    pair_scores,
    resolve_checkpoint_version,
)
from mvl_training.evaluation.held_out import suite
from mvl_training.evaluation.question_scores import QuestionScore

OLD, NEW = "a" * 32, "b" * 32


def compare(
    name: str, first: Mapping[str, QuestionScore | float], second: Mapping[str, QuestionScore | float]
) -> CheckpointComparison:
    return compare_scores(pair_scores(name, None, first, second))


def _scores(values: list[float]) -> dict[str, float]:
    return {f"q{n}": value for n, value in enumerate(values)}


def test_only_questions_in_common_are_compared() -> None:
    result = compare("x", {"a": 1.0, "b": 0.0, "c": 1.0}, {"b": 1.0, "c": 1.0, "d": 0.0})
    assert (result.n_questions, result.first_score, result.second_score, result.difference) == (2, 50.0, 100.0, 50.0)
    assert (result.n_gained, result.n_lost, result.p_value) == (1, 0, 1.0)
    with pytest.raises(BenchmarkError, match="no question of x"):
        compare("x", {"a": 1.0}, {"b": 1.0})


def test_pairing_detects_a_small_gain_that_unpaired_errors_hide() -> None:
    rng = random.Random(1)
    before = [float(rng.random() < 0.5) for _ in range(1000)]
    after = [1.0 if rng.random() < 0.05 else value for value in before]
    result = compare("x", _scores(before), _scores(after))
    unpaired = 100 * math.sqrt(2 * 0.25 / 1000)
    assert 0 < result.difference < 2 * unpaired
    assert result.ci_low > 0 and result.p_value < 0.001


def test_the_interval_covers_the_true_difference_at_its_nominal_rate() -> None:
    rng = random.Random(2)
    inside = 0
    for _ in range(100):
        changes = [rng.choices((-1.0, 0.0, 1.0), (0.1, 0.7, 0.2))[0] for _ in range(300)]
        result = compare("x", _scores([0.0] * 300), _scores(changes))
        inside += result.ci_low <= 10.0 <= result.ci_high
    assert 88 <= inside <= 100


def test_graded_scores_have_an_interval_and_a_p_value_and_are_deterministic() -> None:
    rng = random.Random(3)
    one, two = (_scores([rng.random() for _ in range(60)]) for _ in range(2))
    result = compare("x", one, two)
    assert 0.05 < result.p_value <= 1 and result.ci_low < result.difference < result.ci_high
    assert compare("x", one, two) == result
    assert compare("x", two, one).difference == -result.difference


def test_the_mean_is_over_tasks_and_questions_about_one_video_are_one_piece_of_evidence() -> None:
    large = {f"a{n}": QuestionScore(0.0, "large") for n in range(90)}
    small = {f"b{n}": QuestionScore(0.0, "small") for n in range(10)}
    better = {**large, **{key: QuestionScore(1.0, "small") for key in small}}
    result = compare("x", large | small, better)
    assert result.difference == 50.0, "half of the tasks, though a tenth of the questions"
    videos = [f"video {n % 5}" for n in range(50)]
    before = {f"q{n}": QuestionScore(0.0, "", video) for n, video in enumerate(videos)}
    after = {f"q{n}": QuestionScore(float(video != "video 0"), "", video) for n, video in enumerate(videos)}
    alone = {key: QuestionScore(question.score) for key, question in after.items()}
    clustered, independent = compare("x", before, after), compare("x", before, alone)
    assert clustered.difference == independent.difference == 80.0
    assert clustered.p_value > 0.1 > 1e-6 > compare("x", dict.fromkeys(alone, 0.0), alone).p_value
    assert clustered.ci_high - clustered.ci_low > 50


def test_scores_above_those_of_the_reference_count_in_full() -> None:
    result = compare("x", {"a": 1.0, "b": 0.5}, {"a": 1.5, "b": 0.5})
    assert (result.first_score, result.second_score) == (75.0, 100.0)


def _store(
    lake: Lake,
    version: str,
    scores: Sequence[float | None],
    *,
    settings: str = "s",
    task_hash: str = "h",
    benchmark: str = "Synthetic-Bars",
    protocol: str | None = "default",
) -> None:
    part = f"{version} {settings} {benchmark}"
    common = {
        "partition_key": part,
        "checkpoint_version": version,
        "benchmark": benchmark,
        "settings_hash": settings,
        "protocol": protocol,
    }
    rows: list[dict[str, Any]] = [
        {
            **common,
            "result_id": compute_digest(part, n),
            "task": "t",
            "task_hash": task_hash,
            "question_id": f"q{n}",
            "doc_id": n,
            "score": score,
        }
        for n, score in enumerate(scores)
    ]
    whole = {**common, "result_id": compute_digest(part), "checkpoint": "one_vision"}
    for name, listed in ((ANSWERS_TABLE, rows), (TABLE, [whole])):
        schema = lake.get_table(name).spec.columns
        complete = [{column: row.get(column) for column in schema.names} for row in listed]
        lake.get_table(name).publish([pa.Table.from_pylist(complete, schema=schema)], partition_key=part)


def test_stored_answers_are_paired_within_the_same_settings_and_task_code(lake: Lake) -> None:
    _store(lake, OLD, [1.0, 0.0, 0.0, None])
    _store(lake, NEW, [1.0, 1.0, 0.0, 1.0])
    _store(lake, NEW, [0.0, 0.0, 0.0, 0.0], settings="other")
    (result,) = compare_checkpoints(lake, OLD, NEW)
    assert (result.benchmark, result.n_questions, result.n_gained, result.n_lost) == ("Synthetic-Bars", 3, 1, 0)
    _store(lake, NEW, [1.0, 1.0, 0.0], task_hash="edited")
    with pytest.raises(BenchmarkError, match="in the same way"):
        compare_checkpoints(lake, OLD, NEW)


def test_checkpoints_that_were_asked_by_two_protocols_are_compared_by_the_one_that_is_named(lake: Lake) -> None:
    _store(lake, OLD, [0.0, 0.0, 0.0, 0.0])
    _store(lake, NEW, [1.0, 0.0, 0.0, 0.0])
    _store(lake, OLD, [0.0, 0.0, 0.0, 0.0], settings="p", protocol="paper")
    (only,) = compare_checkpoints(lake, OLD, NEW)
    assert (only.protocol, only.difference) == ("default", 25.0), "both were asked by this one alone"
    _store(lake, NEW, [1.0, 1.0, 1.0], settings="p", protocol="paper")
    with pytest.raises(BenchmarkError, match=r"comparable: Synthetic-Bars \(default, paper\) \| .*--protocol paper"):
        compare_checkpoints(lake, OLD, NEW)
    (default,) = compare_checkpoints(lake, OLD, NEW, protocol="default")
    (paper,) = compare_checkpoints(lake, OLD, NEW, protocol="paper")
    assert default == only
    assert (paper.protocol, paper.n_questions, paper.difference) == ("paper", 3, 100.0)


def test_no_mean_is_over_benchmarks_of_two_protocols(lake: Lake) -> None:
    for version in (OLD, NEW):
        _store(lake, version, [1.0, 0.0])
        _store(lake, version, [1.0, 0.0], settings="p", protocol="paper", benchmark="MMMU")
    with pytest.raises(BenchmarkError, match=r"MMMU \(paper\), Synthetic-Bars \(default\)"):
        compare_checkpoints(lake, OLD, NEW)
    (result,) = compare_checkpoints(lake, OLD, NEW, ["MMMU"])
    assert (result.benchmark, result.protocol) == ("MMMU", "paper")


def test_scores_of_two_protocols_are_never_paired(lake: Lake) -> None:
    _store(lake, OLD, [1.0, 0.0])
    _store(lake, NEW, [1.0, 0.0], settings="p", protocol="paper")
    problem = r"first was asked Synthetic-Bars \(default\), the second Synthetic-Bars \(paper\)"
    with pytest.raises(BenchmarkError, match=problem):
        compare_checkpoints(lake, OLD, NEW)
    with pytest.raises(BenchmarkError, match="in the same way by protocol paper; "):
        compare_checkpoints(lake, OLD, NEW, protocol="paper")


def test_scores_from_before_there_were_two_protocols_are_of_the_default(lake: Lake) -> None:
    _store(lake, OLD, [1.0, 0.0], protocol=None)
    _store(lake, NEW, [1.0, 1.0])
    (result,) = compare_checkpoints(lake, OLD, NEW, protocol="default")
    assert (result.protocol, result.difference) == ("default", 50.0)


def test_benchmarks_together_have_adjusted_p_values_and_a_mean(lake: Lake) -> None:
    for version, right in ((OLD, 0), (NEW, 8)):
        _store(lake, version, [1.0] * right + [0.0] * (40 - right))
        _store(lake, version, [float(n < right // 2) for n in range(10)], benchmark="Synthetic-Pairs")
    first, second, overall = compare_checkpoints(lake, OLD, NEW)
    assert (first.p_value, second.p_value) == (2 / 2**8, 2 / 2**4)
    assert (first.adjusted_p_value, second.adjusted_p_value) == (2 * 2 / 2**8, 2 / 2**4)
    assert (overall.benchmark, overall.n_questions, round(overall.difference, 9)) == ("overall", 50, 30.0)
    assert overall.p_value < 0.01 and 10 < overall.ci_low < 30 < overall.ci_high < 50
    assert overall.adjusted_p_value is None and overall.protocol == "default"


def test_the_held_out_questions_are_compared_too(lake: Lake) -> None:
    table = lake.get_table(suite.TABLE)
    for stage, version, correct in (("single_image", OLD, [True, False, False]), ("one_vision", NEW, [True, True])):
        rows = [
            {
                "result_id": compute_digest(version, n),
                "checkpoint": stage,
                "checkpoint_version": version,
                "settings_hash": "s",
                "question_id": f"q{n}",
                "correct": is_correct,
            }
            for n, is_correct in enumerate(correct)
        ]
        complete = [{name: row.get(name) for name in table.spec.columns.names} for row in rows]
        table.publish([pa.Table.from_pylist(complete, schema=table.spec.columns)], partition_key=stage)
    assert resolve_checkpoint_version(lake, "bb") == NEW
    for protocol in (None, "default", "paper"):
        (result,) = compare_checkpoints(lake, OLD, NEW, protocol=protocol)
        assert (result.benchmark, result.n_questions, result.difference) == ("held_out", 2, 50.0)
        assert result.protocol is None, "there is one way to ask them"
    with pytest.raises(BenchmarkError, match="in the same way"):
        compare_checkpoints(lake, OLD, NEW, ["Synthetic-Bars"])
    for version in (OLD, NEW):
        _store(lake, version, [1.0, 0.0])
    with pytest.raises(BenchmarkError, match="in the same way by protocol paper"):
        compare_checkpoints(lake, OLD, NEW, protocol="paper")


def test_a_version_prefix_resolves_to_its_checkpoint(lake: Lake) -> None:
    with pytest.raises(BenchmarkError, match="no checkpoint"):
        resolve_checkpoint_version(lake, "a")
    _store(lake, OLD, [1.0])
    _store(lake, NEW, [1.0])
    assert resolve_checkpoint_version(lake, "aa") == OLD
    with pytest.raises(BenchmarkError, match="more than one"):
        resolve_checkpoint_version(lake, "")


def test_mvl_compare_prints_both_scores_and_the_difference(lake: Lake) -> None:
    _store(lake, OLD, [0.0] * 20)
    _store(lake, NEW, [1.0] * 10 + [0.0] * 10)
    output = CliRunner().invoke(compare_command, ["aa", "bb"], catch_exceptions=False).output
    assert "Synthetic-Bars" in output and "+50.0" in output and "0.002" in output
    assert "protocol" in output and "default" in output
    assert (
        '"n_gained": 10' in CliRunner().invoke(compare_command, ["aa", "bb", "--json"], catch_exceptions=False).output
    )
    _store(lake, OLD, [1.0] * 8, settings="p", protocol="paper")
    _store(lake, NEW, [0.0] * 8, settings="p", protocol="paper")
    refused = CliRunner().invoke(compare_command, ["aa", "bb"])
    assert isinstance(refused.exception, BenchmarkError)
    output = CliRunner().invoke(compare_command, ["aa", "bb", "--protocol", "paper"], catch_exceptions=False).output
    assert "paper" in output and "-100.0" in output
