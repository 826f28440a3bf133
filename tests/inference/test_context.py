"""A re-ask of a cut answer takes the room that the server's context leaves, and fails where that is no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.request import ModelRef, Request, TokenUse
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.lake.lake import Lake
from tests.servers import serving


def build_reask(cut_answer: TokenUse | None) -> Request:
    message = {"role": "user", "content": "What is next?"}
    return Request((message,), ModelRef("fake", "1"), {"max_tokens": 2000}, "p", "h", cut_answer=cut_answer)


@pytest.fixture
def served() -> Iterator[tuple[FakeServer, Endpoint]]:
    with serving(FakeServerConfig(served_model="fake", max_model_len=1500)) as (server, endpoint):
        server.record_bodies = True
        yield server, endpoint


def test_the_key_does_not_know_the_cut_answer() -> None:
    assert build_reask(TokenUse(1, 1)).key == build_reask(None).key


def test_the_room_of_a_reask_is_what_the_context_leaves(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    server, endpoint = served
    outcome = answer_all([build_reask(TokenUse(3, 1000))], endpoints=[endpoint], log=lake.get_answer_log("s", "a"))
    assert (outcome.answered, [body["max_tokens"] for body in server.bodies]) == (1, [1500 - 3 - 16])


def test_a_reask_without_more_room_is_not_sent(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    server, endpoint = served
    outcome = answer_all([build_reask(TokenUse(490, 1000))], endpoints=[endpoint], log=lake.get_answer_log("s", "a"))
    (failure,) = outcome.failures
    assert (failure.error, server.bodies) == ("context_full", [])
    assert "1,500 tokens leaves 994 beside the 490 of the prompt" in failure.message


def test_where_the_context_is_unknown_the_server_decides(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    server, endpoint = served
    outcome = answer_all([build_reask(None)], endpoints=[endpoint], log=lake.get_answer_log("s", "a"))
    assert [failure.error for failure in outcome.failures] == ["http_400"]
    assert server.fault_counts["too_long"] == 1
