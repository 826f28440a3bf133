"""Questions without their picture: who is asked about what, what the column says, and what is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mvl_assets.config.profile import Profile
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.judging.judge import judge_source
from mvl_assets.judging.text_only_probe import ANSWERABLE_WITHOUT_IMAGE, list_probed_pairs
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.dialogue import QAPair
from mvl_assets.rewriting.rewrite import rewrite_source
from mvl_assets.runner.forecasts import plan_source
from tests.rewriting.small_source import MATH, profile, put
from tests.servers import serving

N_ROWS = 4


def build_probing_profile(*, drop: bool = False) -> Profile:
    """Return a profile whose model `two` is asked without pictures; the default set of prompts has the probe."""
    fields = profile().model_dump() | {"prompts": None, "judging": {"text_only_probe": {"model": "two", "drop": drop}}}
    fields["models"]["two"] = fields["models"]["one"] | {"name": "text", "supports_images": False}
    return Profile.model_validate(fields)


@pytest.fixture
def served(lake: Lake) -> Iterator[tuple[FakeServer, Endpoint]]:
    """A server whose solutions are right, whose verdicts are Yes, and which knows 0 plus 1 and 1 plus 1 by itself."""
    by_pattern = {
        rf"You do not get the picture.*What is {number} plus 1": f"Answer: {number + 1}" for number in range(2)
    }
    by_pattern |= {"You do not get the picture": "Answer: unknown", "The point to check": "Yes"}
    by_pattern |= {
        rf"What is {number} plus 1": f"1. Add 1 to {number}.\nAnswer: {number + 1}" for number in range(N_ROWS)
    }
    with serving(FakeServerConfig(text_by_pattern=by_pattern)) as (server, endpoint):
        put(lake, MATH, range(N_ROWS))
        rewrite_source(lake, MATH, build_probing_profile(), run_id="r0", endpoints=[endpoint])
        server.record_bodies = True
        yield server, endpoint


def judge(lake: Lake, endpoint: Endpoint | None, *, drop: bool = False) -> Any:
    return judge_source(
        lake,
        MATH,
        build_probing_profile(drop=drop),
        run_id="r1",
        endpoints=None if endpoint is None else [endpoint],
        panel_endpoints=[] if endpoint is None else [[endpoint]],
    )


def list_needs(lake: Lake) -> list[bool | None]:
    return sorted((row["needs_image"] for row in lake.get_table("judged/code_math").iter_rows()), key=str)


def test_the_column_says_what_a_model_answers_without_the_picture(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    report = judge(lake, endpoint)
    assert (report.rows, report.kept, report.rejects_by_error) == (N_ROWS, N_ROWS, {})
    assert list_needs(lake) == [False, False, True, True]
    probes = [body for body in server.bodies if "You do not get the picture" in str(body["messages"])]
    assert len(probes) == N_ROWS and all(isinstance(body["messages"][0]["content"], str) for body in probes)
    # Stored like all answers, and a profile that drops asks nobody again.
    dropping = judge(lake, None, drop=True)
    assert (dropping.requests.attempts_sent, dropping.kept) == (0, 2)
    assert dropping.drop_reasons == {ANSWERABLE_WITHOUT_IMAGE: 2}


def test_a_missing_answer_is_a_reject_and_leaves_the_need_open(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    server.config.fault_by_marker = {"You do not get the picture": "400"}
    report = judge(lake, endpoint, drop=True)
    assert (report.rows, report.kept, list_needs(lake)) == (N_ROWS, N_ROWS, [None] * N_ROWS)
    assert {row["error"] for row in lake.get_table("rejects").iter_rows()} == {"http_400"}


def test_nobody_is_asked_by_default(lake: Lake, served: tuple[FakeServer, Endpoint]):
    server, endpoint = served
    judge_source(lake, MATH, profile(), run_id="r1", endpoints=[endpoint])
    assert list_needs(lake) == [None] * N_ROWS
    assert not [body for body in server.bodies if "You do not get the picture" in str(body["messages"])]


def test_a_plan_has_the_probes_of_rewrites_to_come(lake: Lake):
    put(lake, MATH, range(N_ROWS))
    plans = plan_source(lake, MATH, build_probing_profile())
    assert [(plan.stage, plan.model, plan.to_send) for plan in plans] == [
        ("rewritten", "fake", N_ROWS),
        ("judged", "fake", 3 * N_ROWS),
        ("judged", "text", N_ROWS),
    ]


def test_only_what_can_be_compared_is_asked():
    story = QAPair("<image>\nTell a story about it.", "Once upon a time there was a very long road to the sea. " * 3)
    counted = QAPair("How many are there?", "I count them.\nAnswer: 7")
    assert list_probed_pairs([story, counted], [], []) == []
    (probed,) = list_probed_pairs([story, counted], [QAPair("<image>\nHow many are there?", "7")], ["id"])
    assert (probed.question, probed.results) == ("How many are there?", (counted.answer, "7"))
