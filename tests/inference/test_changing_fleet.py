"""Servers that join and leave while a run goes on: nothing is lost, and nothing that is answered is asked twice."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mvl_assets.common.free_port import find_free_port
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.fleet import DnsFleet, FileFleet, Fleet
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Progress, RunOutcome
from mvl_assets.inference.request import Request
from mvl_assets.inference.scheduling import quarantine
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_requests
from tests.patience import PATIENCE_S, wait_until
from tests.servers import FakeProcess, serving

NewLog = Callable[[], AnswerLog]

TEMPLATE = Endpoint("", "fake", start_concurrency=8, max_concurrency=8)
POLL_S = 0.05


@pytest.fixture
def listing(tmp_path: Path) -> Callable[..., FileFleet]:
    """A function that lists servers in the fleet's file, replacing it as a whole, and returns the fleet."""
    path = tmp_path / "endpoints"

    def write(*base_urls: str) -> FileFleet:
        new = tmp_path / "endpoints.new"
        new.write_text("\n".join(base_urls) or "[]", encoding="utf-8")
        new.replace(path)
        return FileFleet(TEMPLATE, POLL_S, path)

    return write


def iter_until(condition: Callable[[], object], spare: int = 64, limit: int = 5000) -> Iterator[Request]:
    """Yield requests until a condition holds, and a few more."""
    requests = iter(build_requests(limit))
    for request in requests:
        yield request
        if condition():
            break
    for _ in range(spare):
        yield next(requests)


class Script(threading.Thread):
    """What happens beside a run; its error is raised at the end."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self.error: BaseException | None = None
        self.reports: list[Progress] = []
        self.has_ended = False

    def run(self) -> None:
        try:
            self._act()
        except BaseException as error:
            self.error = error
        self.has_ended = True

    def answer(self, log: AnswerLog, fleet: Fleet | Sequence[Endpoint], options: EngineOptions) -> RunOutcome:
        """Answer requests until the script has ended."""
        self.start()
        requests = iter_until(lambda: self.has_ended)
        options = dataclasses.replace(options, max_open_requests=64, progress_interval_s=0)
        outcome = answer_all(requests, endpoints=fleet, log=log, options=options, progress_callback=self.reports.append)
        self.join(PATIENCE_S)
        if self.error is not None:
            raise self.error
        assert outcome.failures == []
        assert outcome.answered == outcome.requested == log.count()
        return outcome


def count_answers(server: FakeProcess) -> int:
    return int(server.counts()["answered"])


def test_servers_join_and_leave_during_a_run(
    new_log: NewLog, quick: EngineOptions, listing: Callable[..., FileFleet]
) -> None:
    with FakeProcess("--latency-ms", "50") as first, FakeProcess("--latency-ms", "50") as second:
        fleet = listing(first.base_url)
        sent_to_first: list[int] = []

        def act() -> None:
            wait_until(lambda: count_answers(first) >= 30)
            listing(first.base_url, second.base_url)
            wait_until(lambda: count_answers(second) >= 30)
            listing(second.base_url)
            wait_until(lambda: script.reports[-1].n_endpoints == 1)
            wait_until(lambda: first.counts()["requests"] == count_answers(first))
            sent_to_first.append(first.counts()["requests"])
            n_answers = count_answers(second)
            wait_until(lambda: count_answers(second) >= n_answers + 30)

        script = Script(act)
        outcome = script.answer(new_log(), fleet, quick)
        counts = first.counts(), second.counts()
    assert counts[0]["requests"] == sent_to_first[0], "a server that has left gets nothing new"
    assert outcome.attempts_sent == outcome.answered, "its last requests were answered by itself"
    assert sum(count["answered"] for count in counts) == outcome.answered
    assert all(count["answered_twice"] == 0 for count in counts)


def test_what_is_lost_with_a_server_that_is_stopped_goes_to_the_others(
    new_log: NewLog, quick: EngineOptions, listing: Callable[..., FileFleet]
) -> None:
    with FakeProcess("--latency-ms", "100") as first, FakeProcess("--latency-ms", "50") as second:
        fleet = listing(first.base_url, second.base_url)

        def act() -> None:
            wait_until(lambda: count_answers(first) >= 20 and count_answers(second) >= 20)
            first.kill()
            time.sleep(2 * POLL_S)
            listing(second.base_url)
            n_answers = count_answers(second)
            wait_until(lambda: count_answers(second) >= n_answers + 60)

        outcome = Script(act).answer(new_log(), fleet, quick)
        assert second.counts()["answered_twice"] == 0
    assert outcome.attempts_sent - outcome.answered <= 3 * TEMPLATE.max_concurrency


def test_a_dead_server_of_a_fixed_list_does_not_keep_its_requests(
    new_log: NewLog, quick: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "CRASHED_ENDPOINT_WAIT_S", 0.2)
    with FakeProcess("--latency-ms", "100") as first, FakeProcess("--latency-ms", "50") as second:

        def act() -> None:
            wait_until(lambda: count_answers(first) >= 20 and count_answers(second) >= 20)
            first.kill()
            n_answers = count_answers(second)
            wait_until(lambda: count_answers(second) >= n_answers + 60)

        endpoints = [dataclasses.replace(TEMPLATE, base_url=server.base_url) for server in (first, second)]
        outcome = Script(act).answer(new_log(), endpoints, quick)
    assert outcome.attempts_sent > outcome.answered, "it had requests"


def test_a_server_of_another_model_is_left_out_and_named(
    new_log: NewLog, quick: EngineOptions, listing: Callable[..., FileFleet]
) -> None:
    reports: list[Progress] = []
    options = dataclasses.replace(quick, progress_interval_s=0.05)
    with (
        serving(FakeServerConfig(latency_s=0.05, served_model="fake")) as (_, endpoint),
        serving(FakeServerConfig(served_model="other")) as (stranger, unwanted),
    ):
        fleet = listing(endpoint.base_url, unwanted.base_url)
        outcome = answer_all(
            iter_until(lambda: any(report.endpoint_problems for report in reports)),
            endpoints=fleet,
            log=new_log(),
            options=dataclasses.replace(options, max_open_requests=64),
            progress_callback=reports.append,
        )
    assert outcome.failures == [] and outcome.answered == outcome.requested
    assert stranger.request_counts.total() == 0
    problem = f"{unwanted.base_url} is left out: it serves other, and not fake"
    last = reports[-1]
    assert problem in last.endpoint_problems and problem in last.format_line()
    assert (last.n_endpoints_up, last.n_endpoints) == (1, 2)


def test_a_server_that_changes_its_model_is_left_out_and_the_run_goes_on(
    new_log: NewLog, quick: EngineOptions, listing: Callable[..., FileFleet]
) -> None:
    with (
        serving(FakeServerConfig(latency_s=0.02)) as (first, one),
        serving(FakeServerConfig(latency_s=0.02)) as (second, two),
    ):

        def act() -> None:
            wait_until(lambda: second.answer_counts.total() > 20)
            second.config.served_model = "other"
            n_answers = first.answer_counts.total()
            wait_until(lambda: first.answer_counts.total() > n_answers + 60)

        Script(act).answer(new_log(), listing(one.base_url, two.base_url), quick)


def test_a_broken_list_keeps_the_last_one_and_says_so(
    new_log: NewLog, quick: EngineOptions, listing: Callable[..., FileFleet], tmp_path: Path
) -> None:
    reports: list[Progress] = []
    options = dataclasses.replace(quick, progress_interval_s=0.05, max_open_requests=64)
    with serving(FakeServerConfig(latency_s=0.05)) as (server, endpoint):
        fleet = listing(endpoint.base_url)

        def break_list() -> bool:
            if server.answer_counts.total() > 20:
                fleet.path.write_text("[half a list", encoding="utf-8")
            return any(report.endpoint_problems for report in reports)

        outcome = answer_all(
            iter_until(break_list), endpoints=fleet, log=new_log(), options=options, progress_callback=reports.append
        )
    assert outcome.failures == [] and outcome.answered == outcome.requested
    (problem,) = reports[-1].endpoint_problems
    assert str(fleet.path) in problem and "the list before it stays" in problem


def test_a_run_waits_for_a_fleet_that_is_empty_for_a_while(
    new_log: NewLog, quick: EngineOptions, listing: Callable[..., FileFleet]
) -> None:
    with serving(FakeServerConfig(latency_s=0.02)) as (server, endpoint):

        def act() -> None:
            listing(endpoint.base_url)
            wait_until(lambda: server.answer_counts.total() > 20)
            listing()
            time.sleep(0.5)
            listing(endpoint.base_url)
            n_answers = server.answer_counts.total()
            wait_until(lambda: server.answer_counts.total() > n_answers + 20)

        outcome = Script(act).answer(new_log(), FileFleet(TEMPLATE, POLL_S, listing().path), quick)
        assert outcome.attempts_sent == outcome.answered


def test_a_run_without_any_endpoint_ends_with_the_reason(
    new_log: NewLog, quick: EngineOptions, listing: Callable[..., FileFleet], tmp_path: Path
) -> None:
    options = dataclasses.replace(quick, initial_outage_timeout_s=1)
    missing = FileFleet(TEMPLATE, POLL_S, tmp_path / "missing")
    with pytest.raises(EndpointError, match="missing cannot be read") as caught:
        answer_all(build_requests(3), endpoints=missing, log=new_log(), options=options)
    assert caught.value.hint
    with pytest.raises(EndpointError, match="endpoints lists none"):
        answer_all(build_requests(3), endpoints=listing(), log=new_log(), options=options)
    port = find_free_port()
    with pytest.raises(EndpointError, match=f":{port}/v1 is left out: "):
        answer_all(build_requests(3), endpoints=listing(f"http://127.0.0.1:{port}/v1"), log=new_log(), options=options)


def test_the_addresses_of_a_name_are_servers_that_come_and_go(new_log: NewLog, quick: EngineOptions) -> None:
    addresses = ["127.0.0.1"]

    async def resolve(host: str, port: int) -> Sequence[str]:
        assert host == "fleet.test"
        return list(addresses)

    port = find_free_port()
    with (
        FakeProcess("--latency-ms", "50", port=port) as first,
        FakeProcess("--latency-ms", "50", port=port, host="127.0.0.2") as second,
    ):
        template = dataclasses.replace(TEMPLATE, base_url=f"http://fleet.test:{port}/v1")

        def act() -> None:
            wait_until(lambda: count_answers(first) >= 20)
            addresses.append("127.0.0.2")
            wait_until(lambda: count_answers(second) >= 20)
            addresses.remove("127.0.0.1")
            n_answers = count_answers(second)
            wait_until(lambda: count_answers(second) >= n_answers + 40)

        outcome = Script(act).answer(new_log(), DnsFleet(template, POLL_S, resolve), quick)
        answered = count_answers(first) + count_answers(second)
    assert outcome.attempts_sent == outcome.answered == answered


async def check_names_in_tls(certificate: Path) -> None:
    asked_names: list[str] = []
    hosts: list[str] = []

    async def list_models(request: web.Request) -> web.Response:
        hosts.append(request.headers["Host"])
        return web.json_response({"data": [{"id": "m"}]})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda socket, name, _: asked_names.append(name)
    app = web.Application()
    app.router.add_get("/v1/models", list_models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.2", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    endpoint = Endpoint(f"https://fleet.test:{port}/v1", "m", address="127.0.0.2")
    async with Transport() as transport:
        assert await transport.check_model(endpoint) is None
        fault = await transport.check_model(dataclasses.replace(endpoint, base_url=f"https://other.test:{port}/v1"))
        assert fault is not None and "certificate" in fault.message.lower()
    await runner.cleanup()
    assert hosts == [f"fleet.test:{port}"]
    assert asked_names == ["fleet.test", "other.test"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed")
def test_tls_asks_for_the_name_and_not_for_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "certificate.pem"
    names = ["-subj", "/CN=fleet.test", "-addext", "subjectAltName=DNS:fleet.test"]
    files = ["-keyout", str(certificate), "-out", f"{certificate}.crt"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    trusted = ssl.create_default_context(cafile=f"{certificate}.crt")
    with certificate.open("a", encoding="ascii") as file:
        file.write(Path(f"{certificate}.crt").read_text(encoding="ascii"))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusted)
    asyncio.run(check_names_in_tls(certificate))
