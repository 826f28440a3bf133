"""Requests in batches: each is paid once, whatever the server does and wherever the client is killed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mvl_assets.inference.endpoint import BatchOptions, Endpoint, EndpointError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Progress, RunOutcome
from mvl_assets.inference.request import Request, build_json_output
from mvl_assets.inference.testing.fake_batch_api import FakeBatchApi, FakeBatchConfig
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_request, build_requests
from tests.patience import PATIENCE_S, wait_until
from tests.servers import serve_in_thread

NewLog = Callable[[], AnswerLog]

QUICK_BATCHES = BatchOptions(max_requests=8, poll_interval_s=0.02, settle_s=0.1)


@contextmanager
def serving_batches(
    config: FakeBatchConfig | None = None, options: BatchOptions = QUICK_BATCHES
) -> Iterator[tuple[FakeBatchApi, Endpoint]]:
    api = FakeBatchApi(config)
    with serve_in_thread(api.build_app()) as url:
        yield api, Endpoint(base_url=url, model="fake", batch=options)


def answer(log: AnswerLog, endpoint: Endpoint, requests: list[Request], options: EngineOptions) -> RunOutcome:
    outcome = answer_all(requests, endpoints=[endpoint], log=log, run_id="r1", options=options)
    assert outcome.requested == outcome.n_finished
    assert log.batches.list_batches() == []
    return outcome


def stored_keys(log: AnswerLog) -> set[str]:
    return {key for batch in log.scan(["request_key"]) for key in batch.column(0).to_pylist()}


def test_requests_are_answered_in_batches_within_the_limits(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(20)
    with serving_batches() as (api, endpoint):
        outcome = answer(new_log(), endpoint, [*requests, requests[3]], quick)
        assert (outcome.answered, outcome.deduplicated, outcome.failures) == (20, 1, [])
        assert [len(api.batches), outcome.attempts_sent] == [3, 20]
        assert set(api.paid) == {request.key for request in requests}
        assert set(api.paid.values()) == {1}
        assert sum(api.chat.request_counts.values()) == 0
        assert {name for name, _ in api.files.values()} == {"output"}, "the files of requests are deleted"
        again = answer(new_log(), endpoint, build_requests(21), quick)
    assert (again.cache_hits, again.answered) == (20, 1)
    row = new_log().get([requests[0].key])[requests[0].key]
    assert row["text"].startswith("answer ")
    assert (row["attempts"], row["run_id"], row["prompt"]) == (1, "r1", "test")


def test_a_file_keeps_the_limit_of_bytes(new_log: NewLog, quick: EngineOptions) -> None:
    requests = [*build_requests(6), build_request("long " * 400)]
    options = dataclasses.replace(QUICK_BATCHES, max_requests=100, max_bytes=1000)
    with serving_batches(options=options) as (api, endpoint):
        outcome = answer(new_log(), endpoint, requests, quick)
    assert len(api.batches) == 2
    assert [failure.error for failure in outcome.failures] == ["too_large"]


def test_no_more_batches_are_open_than_allowed(new_log: NewLog, quick: EngineOptions) -> None:
    options = dataclasses.replace(QUICK_BATCHES, max_open=2)
    most = 0

    def look(progress: Progress) -> None:
        nonlocal most
        most = max(most, sum(progress.batch_states.values()))

    with serving_batches(options=options) as (api, endpoint):
        log, quick = new_log(), dataclasses.replace(quick, progress_interval_s=0.001)
        answer_all(build_requests(40), endpoints=[endpoint], log=log, options=quick, progress_callback=look)
    assert len(api.batches) == 5
    assert most == 2


def test_progress_says_the_states_of_batches(new_log: NewLog, quick: EngineOptions) -> None:
    lines: list[str] = []
    with serving_batches(FakeBatchConfig(polls=5)) as (_, endpoint):
        quick = dataclasses.replace(quick, progress_interval_s=0.001)
        answer_all(
            build_requests(10),
            endpoints=[endpoint],
            log=new_log(),
            options=quick,
            progress_callback=lambda progress: lines.append(progress.format_line()),
        )
    assert any("10 in 2 batches (2 in_progress)" in line for line in lines), lines


@pytest.mark.parametrize("fault", ["500", "429", "drop", "expire", "malformed"])
def test_what_may_pass_is_asked_again_and_the_rest_is_kept(fault: str, new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(10)
    config = FakeBatchConfig(fault_by_marker={"question 3": fault}, n_fault_attempts=1)
    with serving_batches(config) as (api, endpoint):
        outcome = answer(new_log(), endpoint, requests, quick)
    assert (outcome.answered, outcome.failures) == (10, [])
    assert set(api.paid.values()) == {1}
    assert api.line_counts[requests[3].key] == 2
    assert new_log().get([requests[3].key])[requests[3].key]["attempts"] == 2


@pytest.mark.parametrize(
    ("fault", "error", "attempts"), [("400", "http_400", 1), ("500", "http_500", 5), ("invalid", "invalid_request", 1)]
)
def test_what_has_no_hope_fails_alone(
    fault: str, error: str, attempts: int, new_log: NewLog, quick: EngineOptions
) -> None:
    requests = build_requests(10)
    with serving_batches(FakeBatchConfig(fault_by_marker={"question 3": fault})) as (api, endpoint):
        outcome = answer(new_log(), endpoint, requests, quick)
    assert outcome.answered == 9
    assert [(f.request_key, f.error, f.attempts) for f in outcome.failures] == [(requests[3].key, error, attempts)]
    assert set(api.paid.values()) == {1}


def test_a_batch_is_made_again_when_the_server_has_room(new_log: NewLog, quick: EngineOptions) -> None:
    with serving_batches(FakeBatchConfig(limited=2)) as (api, endpoint):
        outcome = answer(new_log(), endpoint, build_requests(5), quick)
    assert (outcome.answered, len(api.batches), set(api.paid.values())) == (5, 3, {1})


@pytest.mark.parametrize("step", ["upload", "create", "poll", "delete"])
def test_a_lost_answer_of_the_server_costs_nothing(step: str, new_log: NewLog, quick: EngineOptions) -> None:
    with serving_batches(FakeBatchConfig(lose_answer_of={step})) as (api, endpoint):
        outcome = answer(new_log(), endpoint, build_requests(5), quick)
    assert (outcome.answered, set(api.paid.values())) == (5, {1})


def test_a_server_that_refuses_batches_ends_the_run(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(3)
    with serving_batches(FakeBatchConfig(refuse_status=401)) as (api, endpoint):
        with pytest.raises(EndpointError, match="refused"):
            answer_all(requests, endpoints=[endpoint], log=new_log(), options=quick)
        api.config.refuse_status = None
        assert answer(new_log(), endpoint, requests, quick).answered == 3
    assert set(api.paid.values()) == {1}


def test_answers_are_constrained_in_the_form_that_a_probe_finds(new_log: NewLog, quick: EngineOptions) -> None:
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    request = build_request("say", build_json_output(schema))
    with serving_batches() as (api, endpoint):
        answer(new_log(), dataclasses.replace(endpoint, output_form="auto"), [request], quick)
    assert api.chat.n_form_probes == 1
    assert new_log().get([request.key])[request.key]["output_form"] == "vllm"


def test_requests_in_a_batch_are_not_sent_in_another_way(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(5)
    with serving_batches(FakeBatchConfig(polls=1 << 30)) as (api, endpoint):

        def interrupt(progress: Progress) -> None:
            if progress.batch_states.get("in_progress"):
                raise KeyboardInterrupt

        options = dataclasses.replace(quick, progress_interval_s=0.001)
        with pytest.raises(KeyboardInterrupt):
            answer_all(requests, endpoints=[endpoint], log=new_log(), options=options, progress_callback=interrupt)
        with pytest.raises(EndpointError, match="paid twice"):
            answer_all(requests, endpoints=[dataclasses.replace(endpoint, batch=None)], log=new_log(), options=quick)
        elsewhere = dataclasses.replace(endpoint, base_url="http://127.0.0.1:1/v1")
        with pytest.raises(EndpointError, match="in a batch at"):
            answer_all(requests, endpoints=[elsewhere], log=new_log(), options=quick)
        api.config.polls = 1
        # What nobody wants any more was paid all the same, and is stored.
        outcome = answer(new_log(), endpoint, build_requests(2, "other"), quick)
    assert outcome.answered == 2
    assert new_log().count() == 7
    assert set(api.paid.values()) == {1}


CLIENT = """
import sys
from tests.inference.helpers import build_requests
from mvl_assets.inference.endpoint import BatchOptions, Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.lake.lake import Lake

lake, url = sys.argv[1:]
log = Lake(lake).get_answer_log("rewritten", "source")
endpoint = Endpoint(base_url=url, model="fake", batch=BatchOptions(max_requests=8, poll_interval_s=0.02, settle_s=0.1))
answer_all(build_requests(12), endpoints=[endpoint], log=log, options=EngineOptions(backoff_base_s=0.01))
"""

KILL_POINTS = ["after:upload", "after:create", "before:output", "before:error", "before:delete"]


def start_client(tmp_path: Path, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path / "lake"), url],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )


@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_client_killed_at_any_step_pays_nothing_twice(
    point: str, tmp_path: Path, new_log: NewLog, quick: EngineOptions
) -> None:
    config = FakeBatchConfig(fault_by_marker={"question 3": "500"}, n_fault_attempts=1)
    with serving_batches(config) as (api, endpoint):
        api.hold_at = point
        client = start_client(tmp_path, endpoint.base_url)
        wait_until(lambda: point in api.held or client.poll() is not None, point)
        assert client.poll() is None
        client.kill()
        client.wait(PATIENCE_S)
        api.hold_at = None
        answer(new_log(), endpoint, build_requests(12), quick)
    assert stored_keys(new_log()) == {request.key for request in build_requests(12)}
    assert new_log().count() == 12
    assert set(api.paid.values()) == {1}


def test_a_batch_cannot_be_made_once_it_was_given_up(tmp_path: Path, new_log: NewLog, quick: EngineOptions) -> None:
    with serving_batches() as (api, endpoint):
        api.hold_at = "before:create"
        client = start_client(tmp_path, endpoint.base_url)
        wait_until(lambda: api.held, "the call")
        client.kill()
        client.wait(PATIENCE_S)
        answer(new_log(), endpoint, build_requests(12), quick)
        n_batches = len(api.batches)
        api.hold_at = None
        wait_until(lambda: len(api.batches) > n_batches, "the dead client's batch")
        assert list(api.batches.values())[-1]["status"] == "failed"
    assert set(api.paid.values()) == {1}
