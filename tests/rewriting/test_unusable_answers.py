"""What cannot be used of a model's answers: asked for once more, with more room or by a retry, or a reject."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from mvl_assets.config.prompts import load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.retry_policy import list_reject_groups
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.rewriting.small_source import CHART, MATH, list_rows, plan_rewrite, profile, prompt_folder, put
from tests.servers import serving

MAX_TOKENS = load_prompts(profile=profile())["rewrite_chart"].sampling["max_tokens"]


def test_an_unusable_answer_is_asked_for_once_more_and_then_rejected(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    put(lake, MATH, range(3))
    server.config.fault_by_marker = {"What is 1 plus 1": "length"}
    report = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.requests.requested, report.requests.attempts_sent, report.requests.reasked, report.rows) == (
        3,
        4,
        1,
        2,
    )
    assert report.rejects_by_error == {"length": 1}
    (reject,) = list_rows(lake, "rejects")
    assert (reject["partition_key"], reject["error"], reject["attempts"]) == ("rewritten/drawn", "length", 2)
    temperatures = Counter(body["temperature"] for body in server.bodies)
    assert sorted(temperatures.values()) == [1, 3]
    # Both answers are stored, so the same run again sends nothing and rejects the same row.
    again = rewrite_source(lake, MATH, profile(), run_id="r2")
    assert (again.requests.attempts_sent, again.rejects_by_error) == (0, {"length": 1})


def test_a_refused_request_is_a_reject_until_it_is_asked_for_again(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    put(lake, MATH, range(3))
    server.config.fault_by_marker = {"What is 1 plus 1": "400"}
    first = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (first.rows, first.rejects_by_error) == (2, {"http_400": 1})
    # Still refused: asked once more, and both attempts are counted.
    again = rewrite_source(lake, MATH, profile(), run_id="r2", retry_error_classes=["http_400"], endpoints=[endpoint])
    assert (
        again.requests.attempts_sent,
        again.rejects_by_error,
        [r["attempts"] for r in list_rows(lake, "rejects")],
    ) == (
        1,
        {"http_400": 1},
        [2],
    )
    server.config.fault_by_marker = {}
    # No endpoint is given and the profile's address is dead: only an attempt to send would notice.
    left = rewrite_source(lake, MATH, profile(), run_id="r3")
    assert (left.requests.attempts_sent, left.requests.skipped, left.rows, left.rejects_by_error) == (
        0,
        1,
        2,
        {"http_400": 1},
    )
    plan = plan_rewrite(lake, MATH, profile())
    assert (plan.requested, plan.cache_hits, plan.skipped, plan.to_send) == (3, 2, 1, 0)
    assert [(g.error, g.rows, g.attempts, g.is_auto_retried) for g in list_reject_groups(lake, ["rewritten"])] == [
        ("http_400", 1, 2, False)
    ]
    last = rewrite_source(lake, MATH, profile(), run_id="r4", retry_error_classes=["all"], endpoints=[endpoint])
    assert (last.requests.attempts_sent, last.rows, last.rejects_by_error, list_rows(lake, "rejects")) == (1, 3, {}, [])


def test_a_refused_row_is_asked_again_when_it_is_another_request(
    lake: Lake, served: tuple[FakeServer, Endpoint], tmp_path: Path
):
    server, endpoint = served
    put(lake, MATH, range(3))
    server.config.fault_by_marker = {"What is 1 plus 1": "400"}
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    server.config.fault_by_marker = {}
    prompts = load_prompts(prompt_folder(tmp_path, rewrite_math=("sample lines", "two sample lines")))
    report = rewrite_source(lake, MATH, profile(), run_id="r2", prompts=prompts, endpoints=[endpoint])
    assert (report.requests.attempts_sent, report.requests.skipped, report.rows, list_rows(lake, "rejects")) == (
        3,
        0,
        3,
        [],
    )


def test_what_may_have_been_the_servers_fault_is_asked_again_by_the_next_run(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    put(lake, MATH, range(3))
    server.config.fault_by_marker = {"What is 1 plus 1": "malformed"}
    first = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert first.rejects_by_error == {"malformed_reply": 1}
    assert [g.is_auto_retried for g in list_reject_groups(lake, ["rewritten"])] == [True]
    server.config.fault_by_marker = {}
    second = rewrite_source(lake, MATH, profile(), run_id="r2", endpoints=[endpoint])
    assert (second.requests.attempts_sent, second.requests.skipped, second.rows, second.rejects_by_error) == (
        1,
        0,
        3,
        {},
    )


def test_an_unusable_answer_is_retried_in_a_round_of_its_own_and_no_answer_is_lost(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    put(lake, MATH, range(3))
    server.config.fault_by_marker = {"What is 1 plus 1": "length"}
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    third = rewrite_source(lake, MATH, profile(), run_id="r2", retry_error_classes=["length"], endpoints=[endpoint])
    assert (third.requests.attempts_sent, third.rejects_by_error, list_rows(lake, "rejects")[0]["attempts"]) == (
        1,
        {"length": 1},
        3,
    )
    assert (
        rewrite_source(lake, MATH, profile(), run_id="r3", retry_error_classes=["schema"]).requests.attempts_sent == 0
    )
    server.config.fault_by_marker = {}
    fourth = rewrite_source(lake, MATH, profile(), run_id="r4", retry_error_classes=["length"], endpoints=[endpoint])
    assert (fourth.requests.attempts_sent, fourth.rows, list_rows(lake, "rejects")) == (1, 3, [])
    assert [body.get("seed") for body in server.bodies if "What is 1 plus 1" in str(body)] == [None, None, 3, 4]
    assert lake.get_answer_log("rewritten", "drawn").count() == 6
    assert rewrite_source(lake, MATH, profile(), run_id="r5").published.version == fourth.published.version


def test_a_refused_second_try_is_not_asked_by_every_run(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    put(lake, MATH, range(3))
    server.config.fault_by_marker = {'"frequency_penalty"': "400", "What is 1 plus 1": "length"}
    first = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert first.rejects_by_error == {"http_400": 1}
    second = rewrite_source(lake, MATH, profile(), run_id="r2")
    assert (second.requests.attempts_sent, second.requests.skipped, second.rejects_by_error) == (0, 1, {"http_400": 1})


def test_half_a_character_in_a_reply_is_a_reject_and_the_others_go_on(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    put(lake, MATH, range(3))
    server.config.fault_by_marker = {"What is 1 plus 1": "lone_surrogate"}
    report = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.rejects_by_error) == (2, {"malformed_reply": 1})


def test_a_string_cut_by_its_limit_is_asked_for_with_more_room(lake: Lake):
    put(lake, CHART, range(3))
    with serving(FakeServerConfig(text_chars=250)) as (server, endpoint):
        server.record_bodies = True
        report = rewrite_source(lake, CHART, profile(), run_id="r1", endpoints=[endpoint])
        assert (report.requests.attempts_sent, report.requests.reasked, report.rejects_by_error) == (6, 3, {})
        limits = Counter(
            (
                body["max_tokens"],
                body["response_format"]["json_schema"]["schema"]["properties"]["pairs"]["items"]["properties"][
                    "question"
                ]["maxLength"],
            )
            for body in server.bodies
        )
        assert limits == {(MAX_TOKENS, 160): 3, (2 * MAX_TOKENS, 320): 3}
    assert {len(row["conversations"][1]["value"]) for row in list_rows(lake, "rewritten/chart")} == {250}
    assert rewrite_source(lake, CHART, profile(), run_id="r2").requests.attempts_sent == 0


def test_a_reask_with_more_room_fits_the_context_of_the_server(lake: Lake):
    put(lake, CHART, range(3))
    # Too little for the prompt's text and twice its tokens for the answer.
    with serving(FakeServerConfig(text_chars=250, max_model_len=1000)) as (server, endpoint):
        server.record_bodies = True
        report = rewrite_source(lake, CHART, profile(), run_id="r1", endpoints=[endpoint])
        assert (report.requests.reasked, report.rejects_by_error, server.fault_counts["too_long"]) == (3, {}, 0)
        rooms = [body["max_tokens"] for body in server.bodies if body["max_tokens"] != MAX_TOKENS]
        assert len(rooms) == 3 and all(MAX_TOKENS < room < 2 * MAX_TOKENS for room in rooms)
    assert rewrite_source(lake, CHART, profile(), run_id="r2").requests.attempts_sent == 0


def test_a_cut_answer_to_a_prompt_for_large_models_gets_twice_its_room(lake: Lake):
    put(lake, CHART, range(2))
    large = profile().model_copy(update={"prompts": None})
    # Above the 1,200 characters of a question, below their double.
    with serving(FakeServerConfig(text_chars=1500)) as (server, endpoint):
        server.record_bodies = True
        report = rewrite_source(lake, CHART, large, run_id="r1", endpoints=[endpoint])
        assert (report.requests.attempts_sent, report.requests.reasked, report.rejects_by_error) == (4, 2, {})
        assert Counter(body["max_tokens"] for body in server.bodies) == {3584: 2, 7168: 2}
    assert {len(row["conversations"][1]["value"]) for row in list_rows(lake, "rewritten/chart")} == {1500}
    with serving(FakeServerConfig(text_chars=2500)) as (_, endpoint):
        put(lake, CHART, range(2, 4))
        report = rewrite_source(lake, CHART, large, run_id="r2", endpoints=[endpoint])
    assert (report.rows, report.rejects_by_error) == (0, {"at_length_limit": 2})


def test_a_string_cut_once_more_is_a_reject_and_not_asked_for_again(lake: Lake):
    put(lake, CHART, range(2))
    with serving(FakeServerConfig(text_chars=5000)) as (_, endpoint):
        report = rewrite_source(lake, CHART, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.requests.attempts_sent, report.rejects_by_error) == (0, 4, {"at_length_limit": 2})
    assert rewrite_source(lake, CHART, profile(), run_id="r2").requests.attempts_sent == 0


def test_a_retry_that_is_cut_is_followed_up_in_the_same_run(lake: Lake):
    put(lake, CHART, range(2))
    config = FakeServerConfig(text_chars=250, fault_by_marker={'"temperature":0.4': "schema"})
    with serving(config) as (_, endpoint):
        report = rewrite_source(lake, CHART, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.requests.attempts_sent, report.requests.reasked, report.rejects_by_error) == (6, 4, {})
    assert report.rows == 2


def test_pairs_that_fail_a_check_are_dropped_and_counted_and_the_others_stay(lake: Lake):
    put(lake, CHART, range(3))
    debris = {"kind": "read", "question": "Which sum is shown at the left?", "answer": "2},{"}
    pairs = [debris, {"kind": "read", "question": "Which sum do the two ones make?", "answer": "They make 2."}]
    only_copies = [{"kind": "read", "question": "What is 2 plus 1?", "answer": "3"}, debris]
    config = FakeServerConfig(
        text_by_marker={
            "What is 1 plus 1": json.dumps({"pairs": pairs}),
            "What is 2 plus 1": json.dumps({"pairs": only_copies}),
        }
    )
    with serving(config) as (_, endpoint):
        report = rewrite_source(lake, CHART, profile(), run_id="r1", endpoints=[endpoint])
    # The second sample has no pair left, so it is asked for once more; the first one has.
    assert (report.requests.attempts_sent, report.requests.reasked) == (4, 1)
    assert report.rejects_by_error == {"unchanged": 1, "json_debris": 1}
    (row,) = (r for r in list_rows(lake, "rewritten/chart") if "two ones" in r["conversations"][0]["value"])
    assert row["ordinal"] == 1
    rejects = list(lake.get_table("rejects").iter_rows())
    assert sorted(((r["error"], r["position"], r["request_key"] is None) for r in rejects), key=str) == [
        ("json_debris", 0, True),
        ("unchanged", None, False),
    ]
    assert [(group.error, group.rows) for group in list_reject_groups(lake, ["rewritten"])] == [("unchanged", 1)]
    unchecked = profile().model_copy(update={"paper_parity": True})
    report = rewrite_source(lake, CHART, unchecked, run_id="r2")
    assert (report.requests.attempts_sent, report.rows, report.rejects_by_error) == (0, 5, {})
