"""A rewritten source through the judge against a fake server."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.profile import JudgingConfig, PanelRule, Profile
from mvl_assets.config.prompts import PROMPTS_DIR, compute_criteria_hash, get_judge_prompts, load_prompts
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.progress import Progress
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.judging.judge import judge_source
from mvl_assets.judging.kappa import compute_confusion
from mvl_assets.judging.label_history import LabelHistory, StoredLabel
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.rewriting.small_source import MATH, plan_judges, profile, prompt_folder, put
from tests.servers import serving

UNEXPLAINED: dict[str, Any] = {"reasons": (), "note": "", "is_blind": False}


@pytest.fixture
def served(lake: Lake) -> Iterator[tuple[FakeServer, Endpoint]]:
    """A server, and a lake in which twelve samples are rewritten, none with the result of its source."""
    # Of hexadecimal digits, as the fake's own answers, some would be that result.
    without_result = FakeServerConfig(
        text_by_marker={"Problem: ": "It follows from what the problem and its picture say."}
    )
    with serving(without_result) as (server, endpoint):
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


def test_invalid_log_probabilities_are_replaced_by_votes(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    server.config.fault_rates = {"nan": 1.0}
    report = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.rejects_by_error, report.requests.attempts_sent) == (12, {}, 36 * 5)
    assert {v["p_yes_from"] for row in rows(lake) for v in row["verdicts"]} == {"votes"}


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


def test_the_judge_gets_the_sources_answer_where_the_profile_says_so(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    prompts = load_prompts(PROMPTS_DIR)
    turns = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "the-key-47"}]
    put(lake, MATH, range(3), conversations=turns)
    rewrite_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    server.bodies.clear()
    given = judge_source(lake, MATH, profile(), run_id="r1", prompts=prompts, endpoints=[endpoint])
    texts = [body["messages"][0]["content"][2]["text"] for body in server.bodies]
    assert len(texts) == 9
    assert all("Source's answer: the-key-47" in text.split("\n</sample>\n")[0] for text in texts)
    server.bodies.clear()
    parity = profile().model_copy(update={"paper_parity": True})
    alone = judge_source(lake, MATH, parity, run_id="r2", prompts=prompts, endpoints=[endpoint])
    assert not any("the-key-47" in str(body) for body in server.bodies)
    # Other requests, and each kind is stored.
    assert (given.requests.attempts_sent, alone.requests.attempts_sent) == (9, 9)
    assert judge_source(lake, MATH, profile(), run_id="r3", prompts=prompts).requests.attempts_sent == 0


def test_a_second_run_and_a_moved_rule_send_nothing(lake: Lake, served: tuple[FakeServer, Endpoint]):
    first = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    same = judge_source(lake, MATH, profile(), run_id="r2")
    assert (same.requests.attempts_sent, same.published.version) == (0, first.published.version)
    lax = judge_source(lake, MATH, profile(rule="p_yes >= 0.1"), run_id="r3")
    assert (lax.requests.attempts_sent, lax.kept, lax.published.n_changed) == (0, 12, 12)
    strict = judge_source(lake, MATH, profile(rule="matches_reference"), run_id="r4")
    assert (strict.requests.attempts_sent, strict.kept, strict.drop_reasons) == (0, 0, {"reference_mismatch": 12})


def test_a_label_changes_the_rows_of_its_pair_alone_and_sends_nothing(lake: Lake, served: tuple[FakeServer, Endpoint]):
    rule = "label == good or (label != bad and (matches_reference))"
    judge_source(lake, MATH, profile(rule=rule), run_id="r1", endpoints=[served[1]])
    assert not any(row["keep"] for row in rows(lake))
    first, second, third = rows(lake)[:3]
    for n, (row, annotator, label) in enumerate(
        [(first, "anna", "good"), (second, "anna", "bad"), (third, "anna", "good"), (third, "ben", "bad")]
    ):
        ids = {name: row[name] for name in ("rewrite_id", "sample_id", "source", "category")}
        moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=n)
        LabelHistory(lake).append(
            StoredLabel(**ids, annotator=annotator, label=label, **UNEXPLAINED, created_at=moment)
        )
    report = judge_source(lake, MATH, profile(rule=rule), run_id="r2")
    assert (report.requests.attempts_sent, report.kept, report.published.n_changed) == (0, 1, 2)
    reasons = {row["rewrite_id"]: row["drop_reason"] for row in rows(lake)}
    assert [reasons[row["rewrite_id"]] for row in (first, second, third)] == [None, "label_bad", "reference_mismatch"]
    # A rule that does not ask for labels does as if there were none.
    assert judge_source(lake, MATH, profile(rule="matches_reference"), run_id="r3").kept == 0


def test_an_edited_criterion_asks_for_that_criterion_alone(
    lake: Lake, served: tuple[FakeServer, Endpoint], tmp_path: Path
):
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[served[1]])
    prompts = load_prompts(prompt_folder(tmp_path, judge_general=("completely", "in full")))
    (plan,) = plan_judges(lake, MATH, profile(), prompts=prompts)
    assert (plan.requested, plan.cache_hits, plan.to_send) == (36, 24, 12)
    report = judge_source(lake, MATH, profile(), run_id="r2", prompts=prompts, endpoints=[served[1]])
    assert (report.requests.attempts_sent, report.requests.cache_hits, report.rows) == (12, 24, 12)
    assert {row["prompt_hash"] for row in rows(lake)} == {
        compute_criteria_hash(get_judge_prompts(prompts, "math", reference=True))
    }


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


# -- P(yes) by votes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def voting(served: tuple[FakeServer, Endpoint]) -> tuple[FakeServer, Endpoint]:
    """A server without log-probabilities that says Yes, but No to two of the four further votes of sample 5."""
    server, endpoint = served
    server.config.output_form = "openai"
    server.config.logprobs = "ignored"
    server.config.text_by_pattern = {r'"seed":100[12].*What is 5 plus 1': "No", "": "Yes"}
    return server, replace(endpoint, output_form="auto")


def test_without_log_probabilities_p_yes_is_the_share_of_votes(lake: Lake, voting: tuple[FakeServer, Endpoint]):
    server, endpoint = voting
    progress: list[Progress] = []
    report = judge_source(
        lake, MATH, profile(rule="p_yes >= 0.8"), run_id="r1", endpoints=[endpoint], progress=progress.append
    )
    assert (progress[-1].n_finished, progress[-1].total) == (36 * 5, 36 * 5), "requests, further votes included"
    # A first one and four more for each criterion, each under a key of its own.
    assert (report.requests.attempts_sent, report.rows, report.kept) == (36 * 5, 12, 11)
    assert lake.get_answer_log("judged", "drawn").count() == 36 * 5
    assert Counter((row["p_yes"], row["all_yes"]) for row in rows(lake)) == {(1.0, True): 11, (0.6, True): 1}
    verdicts = [v for row in rows(lake) for v in row["verdicts"]]
    assert {(v["p_yes_from"], len(v["vote_keys"])) for v in verdicts} == {("votes", 4)}
    further = [body for body in server.bodies if "seed" in body]
    assert {(body["seed"], body["temperature"]) for body in further} == {(seed, 0.7) for seed in range(1001, 1005)}
    assert server.n_form_probes == 4, "the form and log-probabilities, once for the first votes and once for the others"
    assert not any("logprobs" in body for body in server.bodies)
    # The same again sends nothing, and another number of votes only what is missing.
    same = judge_source(lake, MATH, profile(rule="p_yes >= 0.8"), run_id="r2")
    assert (same.requests.attempts_sent, same.published.n_changed) == (0, 0)
    seven = profile().model_copy(update={"judging": JudgingConfig(votes=7)})
    assert [plan.to_send for plan in plan_judges(lake, MATH, seven)] == [0, 72]
    assert judge_source(lake, MATH, seven, run_id="r3", endpoints=[endpoint]).requests.attempts_sent == 72
    one = profile().model_copy(update={"judging": JudgingConfig(votes=1)})
    assert judge_source(lake, MATH, one, run_id="r4").requests.attempts_sent == 0
    assert {row["p_yes"] for row in rows(lake)} == {None}


def test_a_server_that_refuses_log_probabilities_is_asked_for_votes(lake: Lake, voting: tuple[FakeServer, Endpoint]):
    server, endpoint = voting
    server.config.logprobs = "refused"
    report = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.requests.attempts_sent, report.rows, report.rejects_by_error) == (36 * 5, 12, {})


def test_a_vote_that_fails_counts_as_no_and_is_a_reject_until_it_is_retried(
    lake: Lake, voting: tuple[FakeServer, Endpoint]
):
    server, endpoint = voting
    server.config.text_by_pattern = {"": "Yes"}
    server.config.fault_by_marker = {'"seed":1003': "400"}
    report = judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert (report.rows, report.rejects_by_error, len(rows(lake, "rejects"))) == (12, {"http_400": 12}, 36)
    assert {row["p_yes"] for row in rows(lake)} == {0.8}
    server.config.fault_by_marker = {}
    assert judge_source(lake, MATH, profile(), run_id="r2").requests.attempts_sent == 0
    again = judge_source(lake, MATH, profile(), run_id="r3", retry_error_classes=["all"], endpoints=[endpoint])
    assert (again.requests.attempts_sent, rows(lake, "rejects")) == (36, [])
    assert {row["p_yes"] for row in rows(lake)} == {1.0}


# -- a panel -----------------------------------------------------------------------------------------------------------


def panel_of(*names: str, rule: str = "all_yes", panel_rule: PanelRule = "majority") -> Profile:
    alone = profile(rule=rule)
    others = {name: alone.models["one"].model_copy(update={"name": name}) for name in names}
    judging = JudgingConfig(panel=list(names), panel_rule=panel_rule)
    return alone.model_copy(update={"models": {**alone.models, **others}, "judging": judging})


def test_each_judge_of_a_panel_has_requests_of_its_own_and_the_rule_decides(
    lake: Lake, served: tuple[FakeServer, Endpoint]
):
    server, endpoint = served
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    before = {row["rewrite_id"]: row for row in rows(lake)}
    assert {row["panel"] for row in before.values()} == {None}
    server.bodies.clear()
    plans = plan_judges(lake, MATH, panel_of("two", "three"))
    assert [(p.model, p.to_send) for p in plans] == [("fake", 0), ("two", 36), ("three", 36)]
    others = [[replace(endpoint, model=name)] for name in ("two", "three")]
    report = judge_source(lake, MATH, panel_of("two", "three"), run_id="r2", panel_endpoints=others)
    assert (report.requests.attempts_sent, report.requests.cache_hits, report.rows) == (72, 36, 12)
    assert {body["model"] for body in server.bodies} == {"two", "three"}
    patterns: Counter[tuple[bool, ...]] = Counter()
    for row in rows(lake):
        assert row["verdicts"] == before[row["rewrite_id"]]["verdicts"]
        assert row["judged_id"] == before[row["rewrite_id"]]["judged_id"]
        assert [member["model"] for member in row["panel"]] == ["two", "three"]
        by_judge = [row["verdicts"], *(member["verdicts"] for member in row["panel"])]
        votes = [[verdicts[n]["verdict"] for verdicts in by_judge] for n in range(3)]
        assert row["keep"] == row["all_yes"] == all(sum(vote) >= 2 for vote in votes)
        assert row["p_yes"] == min(sorted(verdicts[n]["p_yes"] for verdicts in by_judge)[1] for n in range(3))
        patterns[tuple(votes[0])] += 1
    agreement = report.panel_agreement["relevance"]
    assert set(report.panel_agreement) == {"relevance", "consistency", "accuracy", "all"}
    assert (agreement.n, set(agreement.by_pair)) == (12, {(0, 1), (0, 2), (1, 2)})
    assert agreement.by_pair[0, 2] == compute_confusion((p[0], p[2]) for p in patterns.elements())
    # Another rule asks nobody again.
    unanimous = judge_source(lake, MATH, panel_of("two", "three", panel_rule="unanimous"), run_id="r3")
    assert (unanimous.requests.attempts_sent, unanimous.kept <= report.kept) == (0, True)
    alone = judge_source(lake, MATH, profile(), run_id="r4")
    assert (alone.panel_agreement, {row["panel"] for row in rows(lake)}) == ({}, {None})


def test_a_judge_of_a_panel_that_gives_no_verdict_counts_as_no(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    server.config.text_by_pattern = {"": "Yes"}
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    server.config.fault_by_marker = {"What is 5 plus 1": "400"}
    other = [[replace(endpoint, model="two")]]
    report = judge_source(lake, MATH, panel_of("two", panel_rule="unanimous"), run_id="r2", panel_endpoints=other)
    assert (report.rows, report.kept, report.rejects_by_error) == (12, 11, {"http_400": 1})
    (dropped,) = [row for row in rows(lake) if not row["keep"]]
    assert (dropped["drop_reason"], dropped["p_yes"], dropped["panel"][0]["verdicts"]) == ("no_relevance", 0.0, None)
    assert {r["row_key"] for r in rows(lake, "rejects")} == {dropped["rewrite_id"]}
    assert report.panel_agreement["all"].n == 11


def test_a_judge_is_in_a_panel_once(lake: Lake):
    with pytest.raises(ValueError, match="would only agree with itself"):
        Profile.model_validate({**profile().model_dump(), "judging": {"panel": ["one"]}})
    with pytest.raises(ValueError, match="models not declared"):
        Profile.model_validate({**profile().model_dump(), "judging": {"panel": ["nobody"]}})


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
