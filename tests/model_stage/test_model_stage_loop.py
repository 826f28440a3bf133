"""The loop, run with a small stage: what is built, sent, followed up and yielded, also after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from mvl_assets.common.rejects import RejectError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.inference.testing.fake_server import FakeServer
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.loop import StageRun, answer_requests, compute_resume_offset
from mvl_assets.model_stage.plan import plan_stage
from mvl_assets.model_stage.reask import ReaskChain, Resolution
from mvl_assets.model_stage.stage import ModelStage, RowRequests, ServedModel
from tests.servers import serving

MODEL = ModelRef("fake", "1")
RETRY_SAMPLING = {"max_tokens": 8, "temperature": 0.7}


class KilledError(Exception):
    """Stands for a kill while the rows are read."""


@dataclass
class Questions(ModelStage[int, str]):
    """Asks two questions about each of `n_rows` numbers. An answer that was cut off is unusable."""

    models: Sequence[ServedModel]
    n_rows: int = 6
    n_sendable: int = 1_000_000
    retry_sampling: Mapping[str, Any] | None = None
    kill_at: int | None = None
    name: str = "questions"
    source: str = "numbers"
    prompt_hashes: Sequence[str] = ("h",)
    built: list[int] = field(default_factory=list)
    rebuilt: list[int] = field(default_factory=list)

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[int]]:
        for number in [*range(rotate_from, self.n_rows), *range(rotate_from)]:
            if number == self.kill_at:
                raise KilledError
            self.built.append(number)
            yield self.build(model, number)

    def rebuild_requests(self, model: ServedModel, subjects: Sequence[int]) -> Iterator[RowRequests[int]]:
        self.rebuilt += subjects
        return (self.build(model, number) for number in subjects)

    def build(self, model: ServedModel, number: int) -> RowRequests[int]:
        chains = [
            ReaskChain(
                Request(({"role": "user", "content": text},), model.ref, {"max_tokens": 8}, "p", "h"),
                self.retry_sampling,
            )
            for text in (f"What is {number} plus 1?", f"Is {number} even?")
        ]
        return RowRequests(number, chains, number < self.n_sendable)

    def parse(
        self, subject: int, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> str:
        if answer["finish_reason"] != "stop":
            raise RejectError("length", "cut off")
        return f"{subject}/{position}"

    def count_rows(self) -> int:
        return self.n_rows

    def estimate_request_count(self, model: ServedModel | None = None) -> int:
        return 2 * self.n_rows


@pytest.fixture
def served() -> Iterator[tuple[FakeServer, Endpoint]]:
    with serving() as (server, endpoint):
        server.record_bodies = True
        yield server, endpoint


def served_model(endpoint: Endpoint, name: str = "fake") -> ServedModel:
    return ServedModel(ModelRef(name, "1"), lambda: [endpoint])


def unreachable() -> Sequence[Endpoint]:
    raise AssertionError("nothing is to be sent")


def run(lake: Lake, stage: Questions, **options: Any) -> tuple[StageRun[int, str], list[tuple[int, list[str | None]]]]:
    """Run the stage; return its rows with the results of all models' chains."""
    with StageRun(lake, stage, "run", **options) as stage_run:
        stage_run.send()
        rows: list[tuple[int, list[list[Resolution[str]]]]] = list(stage_run.iter_resolved())
    return stage_run, [(number, [one.parsed for chains in models for one in chains]) for number, models in rows]


def expect(numbers: Sequence[int]) -> list[tuple[int, list[str]]]:
    return [(number, [f"{number}/0", f"{number}/1"]) for number in numbers]


def test_all_rows_are_sent_once_and_come_back_in_order(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    stage = Questions([served_model(served[1])], n_rows=600)
    stage_run, rows = run(lake, stage)
    assert rows == expect(range(600))
    assert (stage_run.counts.requested, stage_run.counts.attempts_sent, stage_run.n_sendable_rows) == (1200, 1200, 600)
    assert (stage.built, stage.rebuilt) == (list(range(600)), [])


def test_a_second_run_needs_no_endpoint(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    run(lake, Questions([served_model(served[1])]))
    stage_run, rows = run(lake, Questions([ServedModel(MODEL, unreachable)]))
    assert rows == expect(range(6))
    assert (stage_run.counts.cache_hits, stage_run.counts.attempts_sent) == (12, 0)


def test_a_run_begins_after_the_answered_rows_and_yields_them_in_order(
    lake: Lake, served: tuple[FakeServer, Endpoint]
) -> None:
    run(lake, Questions([served_model(served[1])], n_rows=300))
    stage = Questions([served_model(served[1])], n_rows=900)
    assert compute_resume_offset(lake, stage, MODEL) == (300, 600)
    stage_run, rows = run(lake, stage)
    assert stage.built == [*range(300, 900), *range(300)]
    assert rows == expect(range(900))
    assert stage_run.counts.attempts_sent == 1200


def test_only_rows_with_fresh_unusable_answers_are_built_again(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    server, endpoint = served
    server.config.fault_by_marker = {"What is 2 plus 1": "length", "What is 4 plus 1": "length"}
    stage = Questions([served_model(endpoint)], retry_sampling=RETRY_SAMPLING)
    stage_run, rows = run(lake, stage)
    assert (stage.built, stage.rebuilt) == (list(range(6)), [2, 4])
    assert (stage_run.counts.reasked, stage_run.counts.attempts_sent) == (2, 14)
    assert [number for number, results in rows if None in results] == [2, 4]
    # Both rounds are stored: nothing is built twice, and nothing is sent.
    stage = Questions([ServedModel(MODEL, unreachable)], retry_sampling=RETRY_SAMPLING)
    assert run(lake, stage)[1] == rows
    assert stage.rebuilt == []


def test_an_unusable_answer_of_an_earlier_run_is_followed_up_in_the_first_pass(
    lake: Lake, served: tuple[FakeServer, Endpoint]
) -> None:
    server, endpoint = served
    server.config.fault_by_marker = {"What is 2 plus 1": "length"}
    run(lake, Questions([served_model(endpoint)]))
    server.config.fault_by_marker = {}
    stage = Questions([served_model(endpoint)], retry_sampling=RETRY_SAMPLING)
    (plan,) = plan_stage(lake, stage)
    assert (plan.requested, plan.cache_hits, plan.skipped, plan.to_send) == (12, 11, 0, 1)
    stage_run, rows = run(lake, stage)
    assert (stage_run.counts.attempts_sent, stage_run.counts.reasked, stage.rebuilt) == (1, 1, [])
    (plan,) = plan_stage(lake, stage)
    assert (plan.cache_hits, plan.to_send) == (12, 0)
    assert rows == expect(range(6))


def test_retrying_an_error_class_sends_one_more_round(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    server, endpoint = served
    server.config.fault_by_marker = {"What is 2 plus 1": "length"}
    run(lake, Questions([served_model(endpoint)]))
    for n_sent, classes in ((0, ["schema"]), (1, ["length"]), (1, ["all"])):
        stage_run, rows = run(lake, Questions([served_model(endpoint)]), retry_error_classes=classes)
        assert stage_run.counts.attempts_sent == n_sent
        assert rows[2][1][0] is None
    assert sorted(body["seed"] for body in server.bodies if "seed" in body) == [2, 3]


def test_rows_beyond_a_limit_use_their_answers_and_send_nothing(
    lake: Lake, served: tuple[FakeServer, Endpoint]
) -> None:
    run(lake, Questions([served_model(served[1])], n_sendable=4))
    stage_run, rows = run(lake, Questions([ServedModel(MODEL, unreachable)], n_sendable=2))
    assert rows == [*expect(range(4)), (4, [None, None]), (5, [None, None])]
    assert (stage_run.counts.requested, stage_run.n_sendable_rows) == (4, 2)


def test_each_model_is_asked_about_every_row(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    _server, endpoint = served
    models = [served_model(endpoint), served_model(endpoint, "other")]
    # The first model has answers, so that the two passes begin at different rows.
    run(lake, Questions(models[:1], n_rows=2))
    stage_run, rows = run(lake, Questions(models))
    assert rows == [(number, results * 2) for number, results in expect(range(6))]
    assert (stage_run.counts.cache_hits, stage_run.counts.attempts_sent) == (4, 8 + 12)


@pytest.mark.parametrize("kill_at", [0, 1, 3, 5])
def test_a_killed_run_continues_with_the_missing_requests(
    lake: Lake, served: tuple[FakeServer, Endpoint], kill_at: int
) -> None:
    _server, endpoint = served
    with pytest.raises(KilledError):
        run(lake, Questions([served_model(endpoint)], kill_at=kill_at))
    _, rows = run(lake, Questions([served_model(endpoint)]))
    assert rows == expect(range(6))
    assert lake.get_answer_log("questions", "numbers").count() == 12


def test_failures_are_named_and_leave_the_others(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    server, endpoint = served
    server.config.fault_by_marker = {"What is 2 plus 1": "400"}
    stage_run, rows = run(lake, Questions([served_model(endpoint)]))
    assert [failure.error for failure in stage_run.failures.values()] == ["http_400"]
    assert [number for number, results in rows if None in results] == [2]


def test_given_requests_are_answered_by_key_and_equal_ones_once(
    lake: Lake, served: tuple[FakeServer, Endpoint]
) -> None:
    server, endpoint = served
    requests = [
        Request(({"role": "user", "content": text},), MODEL, {"max_tokens": 8}, "p", "h") for text in ("a", "b", "a")
    ]
    texts, failures = answer_requests(lake, "given", "all", served_model(endpoint), requests, run_id="run")
    assert texts.keys() == {request.key for request in requests} and failures == []
    assert len(server.bodies) == 2
    again = answer_requests(lake, "given", "all", ServedModel(MODEL, unreachable), requests, run_id="run")
    assert again == (texts, [])
