"""A source through rewriting against a fake server: what is sent, what becomes of it, what a change costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mvl_assets.config.prompts import load_prompts
from mvl_assets.errors import SourceError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.forecast import DEFAULT_REASK_SHARE
from mvl_assets.model_stage.loop import compute_resume_offset
from mvl_assets.rewriting import rewrite as rewriting
from mvl_assets.rewriting.rewrite import RewriteStage, rewrite_source
from tests.rewriting.small_source import CHART, MATH, list_rows, plan_rewrite, profile, prompt_folder, put, source_of
from tests.servers import serving


def test_a_row_carries_what_made_it_and_keeps_the_question(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    put(lake, MATH, range(3))
    report = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (
        report.input_rows,
        report.requests.requested,
        report.requests.attempts_sent,
        report.rows,
        report.rejects_by_error,
    ) == (
        3,
        3,
        3,
        3,
        {},
    )
    prompt = load_prompts()["rewrite_math"]
    samples = {s["version_id"]: s for s in lake.get_table("samples").iter_rows()}
    for row in list_rows(lake, "rewritten/code_math"):
        sample = samples[row["version_id"]]
        assert row["sample_id"] == sample["sample_id"]
        assert row["conversations"][0] == sample["conversations"][0]
        assert row["conversations"][1]["value"].startswith("answer ")
        assert (row["prompt"], row["prompt_hash"], row["model"]) == ("rewrite_math", prompt.hash, "fake")
        assert (row["blind"], row["ordinal"], row["run_id"]) == (False, 0, "r1")
        assert lake.get_answer_log("rewritten", "drawn").find_answered([row["request_key"]])
    content = server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text"]
    assert content[0]["text"] == server.bodies[1]["messages"][0]["content"][0]["text"]


def test_a_kept_question_loses_its_request_for_a_short_answer(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    turns = [
        {"from": "human", "value": "<image>\nWhat is 1 plus 1?\nA. 2\nB. 3\nAnswer with the letter of the choice."},
        {"from": "gpt", "value": "A"},
    ]
    put(lake, MATH, range(2), conversations=turns)
    report = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.rejects_by_error) == (2, {})
    for row in list_rows(lake, "rewritten/code_math"):
        assert row["conversations"][0]["value"] == "<image>\nWhat is 1 plus 1?\nA. 2\nB. 3"
    # The model gets the question as it is, so that keys of requests stay.
    assert "Answer with the letter of the choice." in json.dumps(server.bodies[0])


def test_an_image_missing_from_the_lake_rejects_its_sample_alone(lake: Lake, served: tuple[FakeServer, Endpoint]):
    put(lake, MATH, range(4))
    lost = next(lake.get_table("samples").iter_rows(["image_ids", "sample_id"]))
    lake.images.table.delete(sql.equals("image_id", lost["image_ids"][0]))
    report = rewrite_source(Lake(lake.root), MATH, profile(), run_id="r1", endpoints=[served[1]])
    assert (report.rows, report.rejects_by_error) == (3, {"missing_image": 1})
    assert [r["row_key"] for r in lake.get_table("rejects").iter_rows()] == [lost["sample_id"]]


def test_a_second_run_sends_nothing_starts_nothing_and_changes_nothing(lake: Lake, served: tuple[FakeServer, Endpoint]):
    put(lake, MATH, range(5))
    first = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    # No endpoint is given and the profile's address is dead: only an attempt to send would notice.
    second = rewrite_source(lake, MATH, profile(), run_id="r2")
    assert (second.requests.attempts_sent, second.requests.cache_hits, second.rows) == (0, 5, 5)
    assert second.published.version == first.published.version
    assert second.published.data_version == first.published.data_version


def test_appended_rows_alone_are_sent(lake: Lake, served: tuple[FakeServer, Endpoint]):
    put(lake, MATH, range(20))
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    put(lake, MATH, range(22))
    report = rewrite_source(lake, MATH, profile(), run_id="r2", endpoints=[served[1]])
    assert (report.requests.attempts_sent, report.requests.cache_hits, report.rows) == (2, 20, 22)
    assert report.published.n_added == 2
    assert report.published.n_changed == 0


def test_a_run_begins_after_the_rows_that_are_answered(lake: Lake, served: tuple[FakeServer, Endpoint]):
    put(lake, MATH, range(20))
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    put(lake, MATH, range(80))
    prompts = load_prompts()
    edited = prompts | {
        "rewrite_math": replace(prompts["rewrite_math"], template="now " + prompts["rewrite_math"].template)
    }
    for changed, prompts_then, begin in (
        (profile(), prompts, 20),
        (profile(revision="2"), prompts, 0),
        (profile(), edited, 0),
    ):
        stage = RewriteStage(lake, MATH, changed, prompts=prompts_then)
        # As ingest counts them: a question and its answer each.
        stage.estimate_request_count = lambda model=None: 80  # type: ignore[method-assign]
        assert compute_resume_offset(lake, stage, stage.models[0].ref)[0] == begin


def test_samples_come_in_the_same_order_wherever_one_begins(lake: Lake):
    put(lake, MATH, range(20))
    for limit in (None, 9, 50):
        stage = RewriteStage(lake, MATH, profile(), limit=limit)
        model = stage.models[0]
        samples = [row.subject.sample_id for row in stage.iter_requests(model)]
        assert len(samples) == stage.count_rows() == 20
        for first in (0, 1, 8, len(samples)):
            assert [row.subject.sample_id for row in stage.iter_requests(model, first)] == (
                samples[first:] + samples[:first]
            )
        sendable = {row.subject.sample_id for row in stage.iter_requests(model) if row.may_send}
        assert sendable == set(sorted(samples)[:limit])
        assert {row.subject.sample_id for row in stage.iter_requests(model, sendable_only=True)} == sendable


def test_an_edited_prompt_asks_its_family_again_and_no_other(
    lake: Lake, served: tuple[FakeServer, Endpoint], tmp_path: Path
):
    for source in (MATH, CHART):
        put(lake, source, range(4))
        rewrite_source(lake, source, profile(), run_id="r1", endpoints=[served[1]])
    prompts = load_prompts(prompt_folder(tmp_path, rewrite_math=("sample lines", "two sample lines")))
    math = rewrite_source(lake, MATH, profile(), run_id="r2", prompts=prompts, endpoints=[served[1]])
    chart = rewrite_source(lake, CHART, profile(), run_id="r2", prompts=prompts, endpoints=[served[1]])
    assert (math.requests.attempts_sent, math.rows, math.published.n_removed) == (4, 4, 4)
    assert (chart.requests.attempts_sent, chart.rows, chart.published.changed_anything) == (
        0,
        chart.requests.requested,
        False,
    )


def test_another_model_is_asked_again_and_the_old_answers_stay(lake: Lake, served: tuple[FakeServer, Endpoint]):
    put(lake, MATH, range(3))
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    assert (
        rewrite_source(lake, MATH, profile(revision="2"), run_id="r2", endpoints=[served[1]]).requests.attempts_sent
        == 3
    )
    assert rewrite_source(lake, MATH, profile(), run_id="r3").requests.attempts_sent == 0
    assert lake.get_answer_log("rewritten", "drawn").count() == 6


def test_a_larger_limit_contains_the_smaller(lake: Lake, served: tuple[FakeServer, Endpoint]):
    put(lake, MATH, range(12))
    small = rewrite_source(lake, MATH, profile(), run_id="r1", limit=4, endpoints=[served[1]])
    large = rewrite_source(lake, MATH, profile(), run_id="r2", limit=9, endpoints=[served[1]])
    again = rewrite_source(lake, MATH, profile(), run_id="r3", limit=2)
    assert (small.requests.attempts_sent, small.rows) == (4, 4)
    assert (large.requests.attempts_sent, large.requests.cache_hits, large.rows) == (5, 4, 9)
    assert (again.requests.attempts_sent, again.rows) == (0, 9)


def test_a_text_only_model_gets_a_note_and_its_rows_are_marked_blind(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    put(lake, CHART, range(2))
    report = rewrite_source(lake, CHART, profile(supports_images=False), run_id="r1", endpoints=[endpoint])
    assert report.blind == report.rows == 2
    assert all(row["blind"] for row in list_rows(lake, "rewritten/chart"))
    for body in server.bodies:
        assert isinstance(body["messages"][0]["content"], str)
        assert "The picture is not shown." in body["messages"][0]["content"]
    turns = list_rows(lake, "rewritten/chart")[0]["conversations"]
    assert turns[0]["value"].startswith("<image>\n")


def test_a_caption_prompt_never_gets_the_image_and_is_not_blind(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    source = source_of("caption", "caption")
    put(lake, source, range(2))
    report = rewrite_source(lake, source, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.blind) == (2, 0)
    assert all(isinstance(body["messages"][0]["content"], str) for body in server.bodies)


def test_a_better_parser_makes_rows_of_old_answers_for_nothing(
    lake: Lake, served: tuple[FakeServer, Endpoint], monkeypatch: pytest.MonkeyPatch
):
    put(lake, MATH, range(2))
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    parse = rewriting.parse_answer
    monkeypatch.setattr(
        rewriting, "parse_answer", lambda p, text, *rest, **options: parse(p, text.upper(), *rest, **options)
    )
    report = rewrite_source(lake, MATH, profile(), run_id="r2")
    assert (report.requests.attempts_sent, report.published.n_changed) == (0, 2)
    assert all(r["conversations"][1]["value"].startswith("ANSWER") for r in list_rows(lake, "rewritten/code_math"))


def test_equal_samples_are_asked_once_and_each_gets_its_row(lake: Lake, served: tuple[FakeServer, Endpoint]):
    turns = [{"from": "human", "value": "What is one plus one?"}, {"from": "gpt", "value": "2"}]
    put(lake, MATH, range(3), conversations=turns, image_ids=[])
    report = rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    assert (report.requests.attempts_sent, report.rows) == (1, 3)


def test_every_pair_of_a_math_sample_is_asked_and_all_pairs_of_a_chart_at_once(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    turns = [
        {"from": "human", "value": "<image>\nHow many?"},
        {"from": "gpt", "value": "2"},
        {"from": "human", "value": "What colour?"},
        {"from": "gpt", "value": "red"},
    ]
    put(lake, MATH, [0], conversations=turns)
    put(lake, CHART, [0], conversations=turns)
    assert rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint]).requests.requested == 2
    questions = sorted(r["conversations"][0]["value"] for r in list_rows(lake, "rewritten/code_math"))
    assert questions == ["<image>\nHow many?", "<image>\nWhat colour?"]
    server.bodies.clear()
    assert rewrite_source(lake, CHART, profile(), run_id="r1", endpoints=[endpoint]).requests.requested == 1
    data = server.bodies[0]["messages"][0]["content"][2]["text"]
    assert "Question 2: What colour?\nAnswer 2: red" in data


def test_a_sample_without_an_answered_question_is_a_reject(lake: Lake):
    put(lake, MATH, [0], conversations=[{"from": "human", "value": "<image>\nWhat is it?"}])
    report = rewrite_source(lake, MATH, profile(), run_id="r1")
    assert (report.requests.requested, report.rows, report.rejects_by_error) == (0, 0, {"no_question": 1})


def test_a_source_that_is_not_rewritten_says_so(lake: Lake):
    with pytest.raises(SourceError, match="group A is not rewritten"):
        rewrite_source(lake, MATH.model_copy(update={"group": "A"}), profile(), run_id="r1")


def test_the_plan_is_what_is_then_sent(lake: Lake, served: tuple[FakeServer, Endpoint]):
    put(lake, MATH, range(6))
    before = plan_rewrite(lake, MATH, profile(), limit=4)
    assert (before.requested, before.cache_hits, before.to_send) == (4, 0, 4)
    assert before.prompt_tokens > 4 * 256
    half_limit = load_prompts()["rewrite_math"].sampling["max_tokens"] / 2
    assert before.completion_tokens == round(4 * (1 + DEFAULT_REASK_SHARE) * half_limit)
    assert (
        rewrite_source(lake, MATH, profile(), run_id="r1", limit=4, endpoints=[served[1]]).requests.attempts_sent
        == before.to_send
    )
    after = plan_rewrite(lake, MATH, profile())
    assert (after.requested, after.cache_hits, after.to_send) == (6, 4, 2)
    # Every answer of the fake server counts two words.
    assert after.completion_tokens == 2 * 2


@pytest.mark.parametrize("reasoning_field", ["reasoning_content", None])
def test_thoughts_are_stored_apart_and_are_the_rationale_where_the_profile_says_so(
    lake: Lake, reasoning_field: str | None
):
    put(lake, MATH, range(2))
    thinking = FakeServerConfig(reasoning="The one comes after the zero.", reasoning_field=reasoning_field)
    with serving(thinking) as (_, endpoint):
        rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    answers = list(lake.get_answer_lookup("rewritten", "drawn").iter_rows(["text", "reasoning"]))
    assert {answer["reasoning"] for answer in answers} == {"The one comes after the zero."}
    assert all(answer["text"].startswith("answer ") for answer in answers)
    assert all(r["conversations"][1]["value"].startswith("answer ") for r in list_rows(lake, "rewritten/code_math"))
    model = profile().models["one"].model_copy(update={"reasoning": "rationale"})
    report = rewrite_source(lake, MATH, profile().model_copy(update={"models": {"one": model}}), run_id="r2")
    assert (report.requests.attempts_sent, report.rows) == (0, 2)
    assert all(
        r["conversations"][1]["value"].startswith("The one comes after the zero.\n\nanswer ")
        for r in list_rows(lake, "rewritten/code_math")
    )


def test_answers_without_constraints_are_read_tolerantly(lake: Lake):
    put(lake, CHART, range(1))
    pairs = [
        f"<pair><kind>read</kind><question>What is sum {n}?</question><answer>It is {n} $\\theta$.</answer></pair>"
        for n in "12"
    ]
    with serving(FakeServerConfig(output_form="none", text_by_marker={"tagged blocks": "\n".join(pairs)})) as (
        _,
        endpoint,
    ):
        report = rewrite_source(lake, CHART, profile(), run_id="r1", endpoints=[replace(endpoint, output_form="auto")])
    assert (report.rows, report.rejects_by_error) == (2, {})
    assert {row["conversations"][1]["value"] for row in list_rows(lake, "rewritten/chart")} == {
        "It is 1 $\\theta$.",
        "It is 2 $\\theta$.",
    }
