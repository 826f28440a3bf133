"""What progress reports say, and when a run gives up waiting for its endpoints."""

from __future__ import annotations

import asyncio

import pytest

from mvl_assets.config.profile import Price
from mvl_assets.inference.client.attempt import Attempt, PendingRequest
from mvl_assets.inference.client.chat_protocol import ServerLoad
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import FailedRequest, RunOutcome
from mvl_assets.inference.scheduling import progress_reporter
from mvl_assets.inference.scheduling.outage import check_outage_timeout
from mvl_assets.inference.scheduling.progress_reporter import RATE_WINDOW_REPORTS, ProgressReporter
from tests.inference.helpers import build_request

OPTIONS = EngineOptions(outage_timeout_s=100.0, initial_outage_timeout_s=10.0, circuit_breaker_threshold=2)
FAULT = RequestFault("http_500", "broken", FaultScope.UNKNOWN)


def build_client(host: str = "host") -> EndpointClient:
    return EndpointClient(Endpoint(f"http://{host}/v1", "m", start_concurrency=4), OPTIONS)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_reporter, "time", clock)
    return clock


def test_every_way_in_which_a_request_ends_counts_as_finished(clock: Clock) -> None:
    outcome = RunOutcome(requested=20, cache_hits=3, deduplicated=2, answered=4)
    outcome.failures.append(FailedRequest("k", "http_400", "bad", 1))
    client = build_client()
    client.on_sent(Attempt(PendingRequest(build_request("q")), sent_at=0.0))
    report = ProgressReporter("rewrite source", 20, None).build_report(outcome, [client], {"http_500": 2})
    assert (report.n_finished, report.n_failed, report.total) == (10, 1, 20)
    assert (report.in_flight, report.concurrency_limit, report.n_endpoints_up) == (1, 4, 1)
    assert "10/20 requests" in report.format_line() and "retried http_500 2" in report.format_line()


def test_speed_and_time_left_are_those_of_the_last_reports(clock: Clock) -> None:
    outcome = RunOutcome()
    reporter = ProgressReporter("rewrite source", 1000, None)
    assert reporter.build_report(outcome, [build_client()], {}).eta_s is None
    for _ in range(RATE_WINDOW_REPORTS):
        clock.now += 2.0
        outcome.answered += 1
    for _ in range(RATE_WINDOW_REPORTS):
        report = reporter.build_report(outcome, [build_client()], {})
        clock.now += 2.0
        outcome.answered += 20
        outcome.completion_tokens += 400
    report = reporter.build_report(outcome, [build_client()], {})
    assert report.requests_per_s == pytest.approx(10.0)
    assert report.tokens_per_s == pytest.approx(200.0)
    assert report.eta_s == pytest.approx((1000 - outcome.answered) / 10.0)


def test_the_speed_is_that_of_the_servers_where_they_count_tokens(clock: Clock) -> None:
    counting, silent = build_client("a"), build_client("b")
    reporter = ProgressReporter("rewrite source", None, None)
    assert reporter.build_report(RunOutcome(), [counting, silent], {}).server_tokens_per_s is None
    for now, tokens in ((0.0, 1000), (2.0, 1400), (4.0, 1800)):
        counting.record_generated_tokens(tokens, now)
    report = reporter.build_report(RunOutcome(), [counting, silent], {})
    assert (report.tokens_per_s, report.server_tokens_per_s) == (0.0, pytest.approx(200.0))
    assert "200 tokens/s" in report.format_line()
    counting.record_generated_tokens(10, 6.0)  # it was started again
    assert counting.generated_tokens_per_s is None
    counting.record_generated_tokens(30, 8.0)
    mark_down(counting, now=9.0)
    assert reporter.build_report(RunOutcome(), [counting, silent], {}).server_tokens_per_s is None


@pytest.mark.parametrize("load", [None, ServerLoad(3, 50)])
def test_before_the_first_reply_a_servers_load_gives_its_speed_only(load: ServerLoad | None) -> None:
    class Metrics:
        async def read_server_load(self, endpoint: Endpoint) -> ServerLoad | None:
            return load

    client = build_client()
    assert not client.wants_server_load
    client.on_sent(Attempt(PendingRequest(build_request("q")), sent_at=0.0))
    assert client.wants_server_load
    asyncio.run(client.poll_server_load(Metrics()))  # type: ignore[arg-type]
    assert client.reports_queue is None and client.wants_server_load
    client.state.record_success()
    asyncio.run(client.poll_server_load(Metrics()))  # type: ignore[arg-type]
    assert client.reports_queue is (load is not None) and client.wants_server_load is (load is not None)


@pytest.mark.parametrize(("input_price", "cost"), [(10.0, 7.0), (0.0, None)])
def test_a_price_of_zero_gives_no_cost(input_price: float, cost: float | None, clock: Clock) -> None:
    outcome = RunOutcome(prompt_tokens=500_000, completion_tokens=100_000)
    price = Price(input_per_million=input_price, output_per_million=2 * input_price, currency="EUR")
    report = ProgressReporter("rewrite source", None, price).build_report(outcome, [build_client()], {})
    assert report.cost == (None if cost is None else pytest.approx(cost))


def mark_down(client: EndpointClient, now: float) -> None:
    client.state.begin_diagnosis()
    client.state.mark_down(now)


def test_a_run_ends_when_the_last_of_its_endpoints_has_been_down_for_too_long() -> None:
    first, second = build_client("a"), build_client("b")
    for client in (first, second):
        client.state.record_success()
    mark_down(first, now=0.0)
    check_outage_timeout([first, second], OPTIONS, now=500.0)
    mark_down(second, now=500.0)
    check_outage_timeout([first, second], OPTIONS, now=599.0)
    with pytest.raises(EndpointError, match="b/v1 has answered no request for 100 s"):
        check_outage_timeout([first, second], OPTIONS, now=600.0)


def test_an_endpoint_that_has_never_answered_is_waited_for_a_shorter_time() -> None:
    client = build_client()
    mark_down(client, now=0.0)
    check_outage_timeout([client], OPTIONS, now=9.0)
    with pytest.raises(EndpointError, match="no connection"):
        check_outage_timeout([client], OPTIONS, now=10.0)


def test_an_endpoint_that_is_up_and_fails_every_request_counts_as_an_outage() -> None:
    client = build_client()
    client.state.record_success()
    for now in (1.0, 2.0):
        client.on_failure(FAULT, sent_at=0.5, now=now)
    check_outage_timeout([client], OPTIONS, now=100.0)
    with pytest.raises(EndpointError, match="last: broken"):
        check_outage_timeout([client], OPTIONS, now=101.0)


def test_a_server_that_is_being_started_is_waited_for() -> None:
    client = build_client()
    mark_down(client, now=0.0)
    client.state.begin_restart()
    check_outage_timeout([client], OPTIONS, now=10_000.0)
