"""A rewritten source through the judge against a fake server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import serving
from small_source import MATH, profile, prompt_folder, put

from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.fake_server import FakeServer
from mvl_assets.judging.judge import judge_source
from mvl_assets.judging.plan import plan_judge
from mvl_assets.lake.lake import Lake
from mvl_assets.prompts import criteria_hash, judge_prompts, load_prompts
from mvl_assets.rewriting.rewrite import rewrite_source


@pytest.fixture
def served(lake: Lake) -> Iterator[tuple[FakeServer, Endpoint]]:
    """A server, and a lake in which twelve samples are rewritten."""
    with serving() as (server, endpoint):
        put(lake, MATH, range(12))
        rewrite_source(lake, MATH, profile(), run_id="r0", endpoints=[endpoint])
        server.keep_bodies = True
        yield server, endpoint


def rows(lake: Lake, table: str = "judged/code_math") -> list[dict[str, Any]]:
    return sorted(lake.table(table).rows(), key=lambda r: r["row_hash"])


def test_each_rewrite_gets_one_verdict_per_criterion(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    report = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.wanted, report.sent, report.rows, report.unusable) == (36, 36, 12, {})
    for row in rows(lake):
        assert [v["criterion"] for v in row["verdicts"]] == ["relevance", "consistency", "accuracy"]
        # The fake server gives its choice a log-probability of -0.2 and the other word -1.7.
        assert all(v["p_yes"] == pytest.approx(0.8176 if v["verdict"] else 0.1824, abs=1e-4) for v in row["verdicts"])
        assert row["p_yes"] == min(v["p_yes"] for v in row["verdicts"])
        assert row["keep"] == row["all_yes"] == all(v["verdict"] for v in row["verdicts"])
        no = next((v["criterion"] for v in row["verdicts"] if not v["verdict"]), None)
        assert row["drop_reason"] == (f"no_{no}" if no else None)
        assert row["blind"] is False
    assert report.kept == sum(row["keep"] for row in rows(lake))
    assert sum(report.drop_reasons.values()) == report.rows - report.kept
    assert {tuple(body["structured_outputs"]["choice"]) for body in server.bodies} == {("Yes", "No")}


def test_log_probabilities_that_are_no_numbers_cost_the_p_yes_and_not_the_verdict(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    server.behaviour.faults = {"nan": 1.0}
    report = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.unusable) == (12, {})
    assert all(v["p_yes"] is None for row in rows(lake) for v in row["verdicts"])


def test_the_three_requests_of_a_rewrite_differ_only_at_their_end(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    by_data: dict[str, set[str]] = {}
    for body in server.bodies:
        head, _picture, tail = body["messages"][0]["content"]
        data, point = tail["text"].split("The point to check:")
        by_data.setdefault(head["text"] + data, set()).add(point)
    assert len(by_data) == 12
    assert all(len(points) == 3 for points in by_data.values())


def test_the_judge_does_not_get_the_original_key(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    turns = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "the-key-47"}]
    put(lake, MATH, range(3), conversations=turns)
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    server.bodies.clear()
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert server.bodies
    assert not any("the-key-47" in str(body) for body in server.bodies)


def test_a_second_run_sends_nothing_and_a_moved_rule_neither(lake: Lake, served: tuple[FakeServer, Endpoint]):
    first = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    same = judge_source(lake, MATH, profile(), run_id="r2")
    assert (same.sent, same.published.version) == (0, first.published.version)
    lax = judge_source(lake, MATH, profile(rule="p_yes >= 0.1"), run_id="r3")
    assert (lax.sent, lax.kept, lax.published.changed) == (0, 12, 12)
    # The fake answers are no numbers, so none agrees with its key.
    strict = judge_source(lake, MATH, profile(rule="answer_agrees"), run_id="r4")
    assert (strict.sent, strict.kept, strict.drop_reasons) == (0, 0, {"answer_differs": 12})


def test_an_edited_criterion_asks_for_that_criterion_alone(
    lake: Lake, served: tuple[FakeServer, Endpoint], tmp_path: Path
):
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    prompts = load_prompts(prompt_folder(tmp_path, judge_general=("completely", "in full")))
    plan = plan_judge(lake, MATH, profile(), prompts=prompts)
    assert (plan.wanted, plan.answered, plan.to_send) == (36, 24, 12)
    report = judge_source(lake, MATH, profile(), run_id="r2", prompts=prompts, endpoints=[served[1]])
    assert (report.sent, report.reused, report.rows) == (12, 24, 12)
    assert {row["prompt_hash"] for row in rows(lake)} == {criteria_hash(judge_prompts(prompts, "math"))}


def test_appended_rewrites_alone_are_judged(lake: Lake, served: tuple[FakeServer, Endpoint]):
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    put(lake, MATH, range(13))
    rewrite_source(lake, MATH, profile(), run_id="r2", endpoints=[served[1]])
    report = judge_source(lake, MATH, profile(), run_id="r2", endpoints=[served[1]])
    assert (report.sent, report.reused, report.rows, report.published.added) == (3, 36, 13, 1)


def test_a_missing_verdict_is_a_reject_until_it_is_there(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    server.behaviour.markers = {"What is 5 plus 1": "400"}
    first = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (first.rows, first.unusable) == (11, {"http_400": 1})
    (reject,) = rows(lake, "rejects")
    assert reject["part"] == "judge/drawn"
    server.behaviour.markers = {}
    second = judge_source(lake, MATH, profile(), run_id="r2", endpoints=[endpoint])
    assert (second.sent, second.rows, rows(lake, "rejects")) == (3, 12, [])


def test_a_judge_that_reads_text_only_is_told_so_and_its_rows_say_blind(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    report = judge_source(lake, MATH, profile(sees_images=False), run_id="r1", endpoints=[endpoint])
    assert report.blind == report.rows == 12
    assert all(row["blind"] for row in rows(lake))
    assert all("The picture is not shown." in body["messages"][0]["content"] for body in server.bodies)


def test_a_wrong_rule_stops_before_anything_is_sent(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    with pytest.raises(MvlError, match="keep rule"):
        judge_source(lake, MATH, profile(rule="p_yes > 0.5"), run_id="r1", endpoints=[endpoint])
    assert server.bodies == []
