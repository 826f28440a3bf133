"""A rewritten source through the judge against a fake server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import compute_criteria_hash, get_judge_prompts, load_prompts
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer
from mvl_assets.judging.judge import judge_source
from mvl_assets.judging.kappa import Confusion
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.rewriting.small_source import MATH, plan_judges, profile, prompt_folder, put
from tests.servers import serving


@pytest.fixture
def served(lake: Lake) -> Iterator[tuple[FakeServer, Endpoint]]:
    """A server, and a lake in which twelve samples are rewritten."""
    with serving() as (server, endpoint):
        put(lake, MATH, range(12))
        rewrite_source(lake, MATH, profile(), run_id="r0", endpoints=[endpoint])
        server.record_bodies = True
        yield server, endpoint


def rows(lake: Lake, table: str = "judged/code_math") -> list[dict[str, Any]]:
    return sorted(lake.get_table(table).iter_rows(), key=lambda r: r["row_hash"])


def test_each_rewrite_gets_one_verdict_per_criterion(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    report = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.requests.requested, report.requests.attempts_sent, report.rows, report.rejects_by_error) == (
        36,
        36,
        12,
        {},
    )
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


def test_invalid_log_probabilities_lose_p_yes_but_keep_the_verdict(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    server.config.fault_rates = {"nan": 1.0}
    report = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.rejects_by_error) == (12, {})
    assert all(v["p_yes"] is None for row in rows(lake) for v in row["verdicts"])


def test_the_three_requests_of_a_rewrite_differ_only_at_their_end(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    by_data: dict[str, set[str]] = {}
    for body in server.bodies:
        head, _image, tail = body["messages"][0]["content"]
        data, point = tail["text"].split("The point to check:")
        by_data.setdefault(head["text"] + data, set()).add(point)
    assert len(by_data) == 12
    assert all(len(points) == 3 for points in by_data.values())


def test_the_judge_does_not_get_the_reference_answer(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    turns = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "the-key-47"}]
    put(lake, MATH, range(3), conversations=turns)
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    server.bodies.clear()
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert server.bodies
    assert not any("the-key-47" in str(body) for body in server.bodies)


def test_a_second_run_and_a_moved_rule_send_nothing(lake: Lake, served: tuple[FakeServer, Endpoint]):
    first = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    same = judge_source(lake, MATH, profile(), run_id="r2")
    assert (same.requests.attempts_sent, same.published.version) == (0, first.published.version)
    lax = judge_source(lake, MATH, profile(rule="p_yes >= 0.1"), run_id="r3")
    assert (lax.requests.attempts_sent, lax.kept, lax.published.n_changed) == (0, 12, 12)
    # The fake answers are no numbers, so none agrees with its key.
    strict = judge_source(lake, MATH, profile(rule="matches_reference"), run_id="r4")
    assert (strict.requests.attempts_sent, strict.kept, strict.drop_reasons) == (0, 0, {"reference_mismatch": 12})


def test_an_edited_criterion_asks_for_that_criterion_alone(
    lake: Lake, served: tuple[FakeServer, Endpoint], tmp_path: Path
):
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    prompts = load_prompts(prompt_folder(tmp_path, judge_general=("completely", "in full")))
    (plan,) = plan_judges(lake, MATH, profile(), prompts=prompts)
    assert (plan.requested, plan.cache_hits, plan.to_send) == (36, 24, 12)
    report = judge_source(lake, MATH, profile(), run_id="r2", prompts=prompts, endpoints=[served[1]])
    assert (report.requests.attempts_sent, report.requests.cache_hits, report.rows) == (12, 24, 12)
    assert {row["prompt_hash"] for row in rows(lake)} == {compute_criteria_hash(get_judge_prompts(prompts, "math"))}


def test_appended_rewrites_alone_are_judged(lake: Lake, served: tuple[FakeServer, Endpoint]):
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    put(lake, MATH, range(13))
    rewrite_source(lake, MATH, profile(), run_id="r2", endpoints=[served[1]])
    report = judge_source(lake, MATH, profile(), run_id="r2", endpoints=[served[1]])
    assert (report.requests.attempts_sent, report.requests.cache_hits, report.rows, report.published.n_added) == (
        3,
        36,
        13,
        1,
    )


def test_a_refused_verdict_is_a_reject_until_it_is_requested_again(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    server.config.fault_by_marker = {"What is 5 plus 1": "400"}
    first = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (first.rows, first.rejects_by_error) == (11, {"http_400": 1})
    rejects = rows(lake, "rejects")
    assert {(r["partition_key"], r["error"], r["attempts"]) for r in rejects} == {("judged/drawn", "http_400", 1)}
    assert len(rejects) == 3
    server.config.fault_by_marker = {}
    # No endpoint: only an attempt to send would notice.
    same = judge_source(lake, MATH, profile(), run_id="r2")
    assert (same.requests.attempts_sent, same.requests.skipped, same.rows, same.rejects_by_error) == (
        0,
        3,
        11,
        {"http_400": 1},
    )
    assert judge_source(lake, MATH, profile(), run_id="r3", retry_error_classes=["timeout"]).requests.attempts_sent == 0
    again = judge_source(lake, MATH, profile(), run_id="r4", retry_error_classes=["http_400"], endpoints=[endpoint])
    assert (again.requests.attempts_sent, again.rows, rows(lake, "rejects")) == (3, 12, [])


def test_an_unusable_verdict_is_a_reject_until_it_is_retried(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    server.config.fault_by_marker = {"What is 5 plus 1": "white_space"}
    first = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (first.rows, first.rejects_by_error) == (11, {"no_verdict": 1})
    server.config.fault_by_marker = {}
    assert judge_source(lake, MATH, profile(), run_id="r2").rejects_by_error == {"no_verdict": 1}
    again = judge_source(lake, MATH, profile(), run_id="r3", retry_error_classes=["all"], endpoints=[endpoint])
    assert (again.requests.attempts_sent, again.rows, rows(lake, "rejects")) == (3, 12, [])
    # What came back first is kept, and the second answer counts without being asked for again.
    assert lake.get_answer_log("judged", "drawn").count() == 39
    assert judge_source(lake, MATH, profile(), run_id="r4").published.version == again.published.version


# -- a second judge ----------------------------------------------------------------------------------------------------


def two_judges(rule: str = "all_yes") -> Profile:
    one = profile(rule=rule)
    other = one.models["one"].model_copy(update={"name": "other"})
    return one.model_copy(
        update={"models": {**one.models, "two": other}, "roles": {**one.roles, "second_judge": "two"}}
    )


def test_a_second_judge_is_asked_the_same_and_its_verdicts_are_in_the_row(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    other = replace(endpoint, model="other")
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    before = {row["rewrite_id"]: row for row in rows(lake)}
    assert {row["second_all_yes"] for row in before.values()} == {None}
    server.bodies.clear()
    plans = plan_judges(lake, MATH, two_judges())
    assert [(p.model, p.to_send) for p in plans] == [("fake", 0), ("other", 36)]
    report = judge_source(lake, MATH, two_judges(), run_id="r2", second_endpoints=[other])
    assert (report.requests.attempts_sent, report.requests.cache_hits, report.rows) == (36, 36, 12)
    assert {body["model"] for body in server.bodies} == {"other"}
    for row in rows(lake):
        assert row["verdicts"] == before[row["rewrite_id"]]["verdicts"]
        assert (row["judged_id"], row["keep"]) == tuple(before[row["rewrite_id"]][c] for c in ("judged_id", "keep"))
        assert [v["criterion"] for v in row["second_verdicts"]] == ["relevance", "consistency", "accuracy"]
        assert row["second_all_yes"] == all(v["verdict"] for v in row["second_verdicts"])
        assert row["second_p_yes"] == min(v["p_yes"] for v in row["second_verdicts"])
        assert (row["second_model"], row["second_model_revision"]) == ("other", "1")
    both = Counter((row["all_yes"], row["second_all_yes"]) for row in rows(lake))
    assert report.judge_agreement == Confusion(
        both[True, True], both[True, False], both[False, True], both[False, False]
    )
    # Both, without asking either again.
    strict = judge_source(lake, MATH, two_judges("both_yes"), run_id="r3")
    assert (strict.requests.attempts_sent, strict.kept) == (0, both[True, True])
    assert all((r["drop_reason"] or "").startswith("second_no_") for r in rows(lake) if r["all_yes"] and not r["keep"])
    alone = judge_source(lake, MATH, profile(), run_id="r4")
    assert alone.judge_agreement is None
    assert {row["second_model"] for row in rows(lake)} == {None}


def test_a_second_judge_that_gives_no_verdict_leaves_the_first_ones_row(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    server.config.fault_by_marker = {"What is 5 plus 1": "400"}
    other = replace(endpoint, model="other")
    report = judge_source(lake, MATH, two_judges("both_yes"), run_id="r2", second_endpoints=[other])
    assert (report.rows, report.rejects_by_error) == (12, {"http_400": 1})
    (silent,) = [row for row in rows(lake) if row["second_all_yes"] is None]
    assert silent["all_yes"] is not None and silent["second_model"] is None and not silent["keep"]
    assert silent["drop_reason"] == ("no_second_verdict" if silent["all_yes"] else silent["drop_reason"])
    assert {r["row_key"] for r in rows(lake, "rejects")} == {silent["rewrite_id"]}


def test_both_yes_without_a_second_judge_is_explained(lake: Lake):
    with pytest.raises(MvlError, match="second_judge among the profile's roles"):
        judge_source(lake, MATH, profile(rule="both_yes"), run_id="r1")
    with pytest.raises(ValueError, match="would only agree with itself"):
        Profile.model_validate({**profile().model_dump(), "roles": {**profile().roles, "second_judge": "one"}})


def test_a_text_only_judge_gets_a_note_and_its_rows_are_marked_blind(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    report = judge_source(lake, MATH, profile(supports_images=False), run_id="r1", endpoints=[endpoint])
    assert report.blind == report.rows == 12
    assert all(row["blind"] for row in rows(lake))
    assert all("The picture is not shown." in body["messages"][0]["content"] for body in server.bodies)


def test_a_wrong_rule_stops_before_anything_is_sent(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    with pytest.raises(MvlError, match="keep rule"):
        judge_source(lake, MATH, profile(rule="p_yes > 0.5"), run_id="r1", endpoints=[endpoint])
    assert server.bodies == []
