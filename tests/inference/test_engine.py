"""The engine against a server that misbehaves: every request ends as exactly one of answer or failure."""

from __future__ import annotations

import dataclasses
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mvl_assets.common.free_port import find_free_port
from mvl_assets.config.profile import Price
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Progress, RunOutcome
from mvl_assets.inference.request import Request, build_choice_output, build_json_output
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_request, build_requests
from tests.patience import PATIENCE_S, wait_until
from tests.servers import FakeProcess, serving

NewLog = Callable[[], AnswerLog]


def stored(log: AnswerLog) -> dict[str, dict]:
    return {row["request_key"]: row for batch in log.scan() for row in batch.to_pylist()}


def assert_accounted_for(requests: list, outcome: RunOutcome, log: AnswerLog) -> None:
    answered = set(stored(log))
    failed = {failure.request_key for failure in outcome.failures}
    assert answered | failed == {request.key for request in requests}
    assert not answered & failed
    assert log.count() == len(answered)
    assert outcome.requested == outcome.cache_hits + outcome.deduplicated + outcome.answered + len(outcome.failures)


def test_every_request_is_answered_and_sent_once(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(300)
    with serving(FakeServerConfig(latency_s=0.002)) as (server, endpoint):
        outcome = answer_all(iter(requests), endpoints=[endpoint], log=new_log(), run_id="r1", options=quick)
    assert (outcome.requested, outcome.attempts_sent, outcome.answered, outcome.failures) == (300, 300, 300, [])
    assert set(server.request_counts.values()) == {1}
    assert_accounted_for(requests, outcome, new_log())
    row = stored(new_log())[requests[7].key]
    assert row["text"].startswith("answer ")
    assert (row["finish_reason"], row["attempts"], row["run_id"]) == ("stop", 1, "r1")
    assert (row["stage"], row["source"], row["prompt"]) == ("rewritten", "source", "test")


def test_a_second_run_sends_only_the_difference(new_log: NewLog, quick: EngineOptions) -> None:
    with serving() as (server, endpoint):
        answer_all(build_requests(100), endpoints=[endpoint], log=new_log(), options=quick)
        outcome = answer_all(build_requests(110), endpoints=[endpoint], log=new_log(), options=quick)
    assert (outcome.requested, outcome.cache_hits, outcome.attempts_sent) == (110, 100, 10)
    assert sum(server.request_counts.values()) == 110


def test_equal_requests_are_sent_once(new_log: NewLog, quick: EngineOptions) -> None:
    requests = [build_request(f"question {i % 40}") for i in range(400)]
    with serving(FakeServerConfig(latency_s=0.005)) as (server, endpoint):
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=quick)
    assert sum(server.request_counts.values()) == outcome.attempts_sent == 40
    assert outcome.answered == 40
    assert outcome.cache_hits + outcome.deduplicated == 360


def test_the_iterable_is_read_as_answers_come_and_not_ahead(new_log: NewLog, quick: EngineOptions) -> None:
    read = 0
    ahead = 0
    options = dataclasses.replace(quick, max_open_requests=100)
    with serving(FakeServerConfig(latency_s=0.001)) as (server, endpoint):

        def requests():
            nonlocal read, ahead
            for request in build_requests(600):
                read += 1
                ahead = max(ahead, read - sum(server.answer_counts.values()))
                yield request

        answer_all(requests(), endpoints=[endpoint], log=new_log(), options=options)
    assert read == 600
    assert ahead <= 101


@pytest.mark.parametrize("fault", ["429", "429_bare", "500", "502", "503", "reset", "html", "malformed"])
def test_a_transient_fault_loses_no_request(fault: str, new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(120)
    behaviour = FakeServerConfig(fault_rates={fault: 0.3}, retry_after_s=0.02)
    with serving(behaviour) as (server, endpoint):
        options = dataclasses.replace(quick, max_attempts=12)
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=options)
    assert outcome.failures == []
    assert server.fault_counts[fault] > 20
    assert set(server.answer_counts.values()) == {1}
    assert_accounted_for(requests, outcome, new_log())


def test_a_date_in_retry_after_delays_only_its_own_request(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(100)
    with serving(FakeServerConfig(fault_by_marker={"question 7": "429_date"}, n_fault_attempts=1)) as (
        server,
        endpoint,
    ):
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=quick)
    assert (outcome.attempts_sent, outcome.failures) == (111, []), "questions 7 and 70 to 79 are refused once"
    assert outcome.elapsed_s >= 1, "a date has whole seconds: the second after next is at least one away"
    assert set(server.request_counts.values()) == {1, 2}


@pytest.mark.parametrize("fault", ["429_bare", "503"])
def test_a_request_that_is_always_rejected_fails_alone_and_the_run_ends(
    new_log: NewLog, quick: EngineOptions, fault: str
) -> None:
    with serving(FakeServerConfig(fault_by_marker={"question 7": fault})) as (_, endpoint):
        outcome = answer_all(
            build_requests(20),
            endpoints=[endpoint],
            log=new_log(),
            options=dataclasses.replace(quick, max_attempts=1, outage_timeout_s=2),
        )
    assert outcome.answered == 19
    (failure,) = outcome.failures
    assert failure.error == f"http_{fault[:3]}"
    assert failure.attempts > 1, "what the server rejects for its own reasons is no attempt of the request"


def test_answers_are_stored_while_the_iterable_yields_no_requests(new_log: NewLog, quick: EngineOptions) -> None:
    """As after a restart, when what is stored comes by behind the new rows."""
    stored: list[int] = []

    def rows() -> Iterator[Request | None]:
        yield from build_requests(4)
        deadline = time.monotonic() + PATIENCE_S
        while not stored and time.monotonic() < deadline:
            time.sleep(0.01)
            stored.extend([count] if (count := new_log().count()) == 4 else [])
            yield None

    with serving() as (_, endpoint):
        outcome = answer_all(rows(), endpoints=[endpoint], log=new_log(), options=quick)
    assert (outcome.answered, stored) == (4, [4])


def test_an_answer_that_drips_without_end_times_out_and_is_sent_again(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(10)
    options = dataclasses.replace(quick, base_timeout_s=1, min_tokens_per_s=1000)
    with serving(FakeServerConfig(fault_by_marker={"question 7": "drip"}, n_fault_attempts=1)) as (_, endpoint):
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=options)
    assert outcome.failures == []
    assert stored(new_log())[requests[7].key]["attempts"] >= 2


def test_a_request_that_hangs_is_hedged_before_it_times_out(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(200)
    # By its own time-out it would take longer than the test waits.
    options = dataclasses.replace(quick, hedge_requests=True, base_timeout_s=PATIENCE_S)
    with serving(FakeServerConfig(latency_s=0.01, fault_by_marker={"question 7": "hang"}, n_fault_attempts=1)) as (
        _,
        endpoint,
    ):
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=options)
    assert outcome.failures == []
    assert outcome.elapsed_s < PATIENCE_S
    assert_accounted_for(requests, outcome, new_log())
    assert stored(new_log())[requests[7].key]["attempts"] >= 2


@pytest.mark.parametrize(("fault", "finish_reason"), [("schema", "stop"), ("white_space", "length")])
def test_an_answer_that_breaks_its_schema_is_stored_as_it_came(
    fault: str, finish_reason: str, new_log: NewLog, quick: EngineOptions
) -> None:
    """It was paid for, and whether it can be read is not the engine's to say."""
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    request = build_request("answer in JSON", build_json_output(schema))
    with serving(FakeServerConfig(fault_rates={fault: 1.0})) as (_, endpoint):
        outcome = answer_all([request], endpoints=[endpoint], log=new_log(), options=quick)
    assert (outcome.answered, outcome.failures) == (1, [])
    row = stored(new_log())[request.key]
    assert row["finish_reason"] == finish_reason
    assert "answer" not in row["text"]


def test_a_request_that_hangs_times_out_and_is_sent_again(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(30)
    options = dataclasses.replace(quick, base_timeout_s=1, min_tokens_per_s=1000)
    with serving(FakeServerConfig(fault_by_marker={"question 7": "hang"}, n_fault_attempts=1)) as (_, endpoint):
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=options)
    assert outcome.failures == []
    assert stored(new_log())[requests[7].key]["attempts"] >= 2


@pytest.mark.parametrize(
    ("fault", "error", "attempts"),
    [
        ("400", "http_400", 1),
        ("500", "http_500", 5),
        ("malformed", "malformed_reply", 5),
        ("reset", "connection_lost", 5),
    ],
)
def test_a_request_that_never_succeeds_fails_alone(
    fault: str, error: str, attempts: int, new_log: NewLog, quick: EngineOptions
) -> None:
    requests = [*build_requests(60), build_request("the bad row"), *build_requests(60, "later")]
    with serving(FakeServerConfig(fault_by_marker={"the bad row": fault})) as (_, endpoint):
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=quick)
    assert [(f.request_key, f.error, f.attempts) for f in outcome.failures] == [(requests[60].key, error, attempts)]
    assert_accounted_for(requests, outcome, new_log())


def test_an_answer_cut_by_the_token_limit_is_stored_with_its_finish_reason(
    new_log: NewLog, quick: EngineOptions
) -> None:
    requests = build_requests(3)
    with serving(FakeServerConfig(fault_rates={"length": 1.0})) as (_, endpoint):
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=quick)
    assert outcome.answered == 3
    assert {row["finish_reason"] for row in stored(new_log()).values()} == {"length"}


def test_a_storm_of_errors_pauses_the_run_and_fails_nothing(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(200)
    with serving(FakeServerConfig(latency_s=0.002)) as (server, endpoint):
        server.is_down = True
        threading.Timer(1.0, lambda: setattr(server, "is_down", False)).start()
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=quick)
    assert outcome.failures == []
    assert outcome.answered == 200
    # Paused: a second of 503 costs far fewer attempts than asking on would.
    assert outcome.attempts_sent < 300


def test_an_endpoint_that_never_answers_ends_the_run_with_one_clear_error(
    new_log: NewLog, quick: EngineOptions
) -> None:
    endpoint = Endpoint(base_url=f"http://127.0.0.1:{find_free_port()}/v1", model="fake")
    options = dataclasses.replace(quick, initial_outage_timeout_s=0.3)
    with pytest.raises(EndpointError, match="has answered no request") as caught:
        answer_all(build_requests(10), endpoints=[endpoint], log=new_log(), options=options)
    assert caught.value.hint


def test_a_missing_api_key_ends_the_run_at_once(
    new_log: NewLog, quick: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MVL_TEST_KEY", raising=False)
    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", model="fake", api_key_env="MVL_TEST_KEY")
    with pytest.raises(EndpointError, match="MVL_TEST_KEY is not set"):
        answer_all(build_requests(1), endpoints=[endpoint], log=new_log(), options=quick)


def test_answers_that_arrived_before_an_error_of_the_iterable_are_stored(new_log: NewLog, quick: EngineOptions) -> None:
    def broken() -> Iterator[Request | None]:
        yield from build_requests(64)
        yield None
        wait_until(lambda: sum(server.answer_counts.values()) == 64)
        reported = len(in_flight)
        wait_until(lambda: len(in_flight) > reported + 1 and in_flight[-1] == 0, "arrival at the client")
        raise RuntimeError("the source broke")

    in_flight: list[int] = []
    # Nothing is stored before its time comes.
    options = dataclasses.replace(quick, progress_interval_s=0, flush_interval_s=PATIENCE_S)
    with serving() as (server, endpoint), pytest.raises(RuntimeError, match="the source broke"):
        answer_all(
            broken(),
            endpoints=[endpoint],
            log=new_log(),
            options=options,
            progress_callback=lambda p: in_flight.append(p.in_flight),
        )
    assert new_log().count() == 64


def test_only_the_request_that_crashes_the_server_fails(new_log: NewLog, quick: EngineOptions) -> None:
    requests = [*build_requests(40), build_request("the poison row"), *build_requests(40, "later")]
    with FakeProcess("--poison", "the poison row", "--latency-ms", "20") as server:
        endpoint = server.restart()
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), options=quick)
        assert [(f.request_key, f.error) for f in outcome.failures] == [(requests[40].key, "crashed_server")]
        assert server.n_starts <= 5
    assert_accounted_for(requests, outcome, new_log())


def test_a_killed_server_loses_no_request(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(200)
    with FakeProcess("--latency-ms", "20") as server:
        killed = threading.Event()

        def kill_in_the_middle():
            for i, request in enumerate(requests):
                if i == 128 and not killed.is_set():
                    killed.set()
                    server.kill()
                yield request

        options = dataclasses.replace(quick, max_open_requests=64)
        outcome = answer_all(kill_in_the_middle(), endpoints=[server.restart()], log=new_log(), options=options)
        assert server.n_starts == 2
    assert outcome.failures == []
    assert_accounted_for(requests, outcome, new_log())


def test_two_endpoints_share_the_requests_and_one_may_go_down(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(300)
    with (
        serving(FakeServerConfig(latency_s=0.01)) as (first, one),
        serving(FakeServerConfig(latency_s=0.01)) as (second, two),
    ):

        def lose_the_second():
            for i, request in enumerate(requests):
                if i == 200:
                    second.is_down = True
                yield request

        options = dataclasses.replace(quick, max_open_requests=64)
        outcome = answer_all(lose_the_second(), endpoints=[one, two], log=new_log(), options=options)
    assert outcome.failures == []
    assert sum(first.answer_counts.values()) > 0 < sum(second.answer_counts.values())
    assert_accounted_for(requests, outcome, new_log())


@pytest.mark.parametrize("queue", [None, 4])
def test_a_full_server_is_kept_below_its_maximum_concurrency(
    queue: int | None, new_log: NewLog, quick: EngineOptions
) -> None:
    requests = build_requests(1500)
    limits: list[int] = []
    options = dataclasses.replace(quick, progress_interval_s=0.0)
    with serving(FakeServerConfig(latency_s=0.02, slots=8, max_queued=queue)) as (_, endpoint):
        wide = dataclasses.replace(endpoint, start_concurrency=4, max_concurrency=512)
        outcome = answer_all(
            requests,
            endpoints=[wide],
            log=new_log(),
            options=options,
            progress_callback=lambda p: limits.append(p.concurrency_limit),
        )
    assert outcome.failures == []
    # Which limit it is depends on what else this machine does; that it is not the highest does not.
    assert statistics.median(limits[len(limits) // 2 :]) < 512
    assert_accounted_for(requests, outcome, new_log())


def test_the_faster_of_two_endpoints_gets_more(new_log: NewLog, quick: EngineOptions) -> None:
    requests = build_requests(600)
    with (
        serving(FakeServerConfig(latency_s=0.02, slots=8)) as (fast, one),
        serving(FakeServerConfig(latency_s=2, slots=8)) as (slow, two),
    ):
        endpoints = [dataclasses.replace(endpoint, max_concurrency=8) for endpoint in (one, two)]
        outcome = answer_all(requests, endpoints=endpoints, log=new_log(), options=quick)
    assert outcome.failures == []
    assert sum(fast.answer_counts.values()) > sum(slow.answer_counts.values()) > 0


def test_a_choice_is_constrained_and_keeps_the_first_tokens_log_probabilities(
    new_log: NewLog, quick: EngineOptions
) -> None:
    request = build_request("is it so?", build_choice_output("Yes", "No"))
    with serving() as (server, endpoint):
        server.record_bodies = True
        answer_all([request], endpoints=[endpoint], log=new_log(), options=quick)
    assert server.bodies[0]["structured_outputs"] == {"choice": ["Yes", "No"]}
    row = stored(new_log())[request.key]
    assert row["text"] in ("Yes", "No")
    assert set(json.loads(row["first_token_logprobs"])) == {"Yes", "No"}


def test_a_schema_goes_out_as_response_format(new_log: NewLog, quick: EngineOptions) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    request = build_request("answer in JSON", build_json_output(schema))
    with serving() as (server, endpoint):
        server.record_bodies = True
        answer_all([request], endpoints=[endpoint], log=new_log(), options=quick)
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == schema
    assert json.loads(stored(new_log())[request.key]["text"])["answer"]


def test_progress_ends_at_the_number_of_requests(new_log: NewLog, quick: EngineOptions) -> None:
    seen: list[Progress] = []
    options = dataclasses.replace(quick, progress_interval_s=0.0)
    with serving(FakeServerConfig(latency_s=0.3)) as (_, endpoint):
        price = Price(input_per_million=10_000.0, output_per_million=50_000.0, currency="EUR")
        answer_all(
            build_requests(40),
            endpoints=[endpoint],
            log=new_log(),
            total=40,
            price=price,
            progress_callback=seen.append,
            options=options,
        )
    assert seen[0].n_finished == 0 and seen[0].total == 40
    assert any(p.in_flight for p in seen)
    assert all(p.in_flight <= p.concurrency_limit for p in seen)
    last = seen[-1]
    assert (last.n_finished, last.in_flight, last.eta_s) == (40, 0, 0)
    assert last.cost == pytest.approx(last.prompt_tokens / 100 + last.completion_tokens / 20)
    assert last.cost > 0
    assert last.format_line().startswith(f"rewritten source · {last.n_finished}/40 requests · ")
    for part in (" in flight of ", f" · {last.cost:.2f} EUR", " tokens/s"):
        assert part in last.format_line()
