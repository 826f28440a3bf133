"""The lease of a local server, with the fake server in place of vLLM."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mvl_assets.common.free_port import find_free_port
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.local_server import server
from mvl_assets.inference.local_server.server import (
    ServerError,
    ensure_server,
    list_servers,
    start_server_in_background,
    stop_servers,
)
from mvl_assets.inference.local_server.server_spec import ServerSpec
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import Request
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_requests
from tests.patience import PATIENCE_S, wait_until

FAKE = (sys.executable, "-m", "mvl_assets.inference.testing.fake_server", "--latency-ms", "20", "--port")
PROJECT = Path(__file__).parents[3]


def build_spec(idle_timeout_s: float = 60.0, command: tuple[str, ...] = FAKE, port: int | None = None) -> ServerSpec:
    return ServerSpec(model="fake", served_model_name="fake", idle_timeout_s=idle_timeout_s, command=command, port=port)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MVL_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    stop_servers()
    assert list_group_members(tmp_path) == []


def list_group_members(folder: Path) -> list[psutil.Process]:
    """Everything that was started for a server below this folder: the supervisor names it in its command."""
    members = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()):
                members.append(process)
        except psutil.Error:
            continue
    return members


def is_up(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/health", timeout=PATIENCE_S) as response:
            return response.status == 200
    except OSError:
        return False


def in_another_process(code: str) -> subprocess.Popen[str]:
    preamble = """
        import sys
        from mvl_assets.inference.local_server.server import ensure_server
        from mvl_assets.inference.local_server.server_spec import ServerSpec
        FAKE = (sys.executable, "-m", "mvl_assets.inference.testing.fake_server", "--latency-ms", "20", "--port")
        spec = ServerSpec(model="fake", served_model_name="fake", idle_timeout_s=60.0, command=FAKE)
        """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(preamble) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def test_the_second_caller_finds_the_server_of_the_first() -> None:
    first, second = ensure_server(build_spec()), ensure_server(build_spec())
    assert first.base_url == second.base_url
    assert [(s.state, s.served_model_name, s.base_url) for s in list_servers()] == [("ready", "fake", first.base_url)]


def test_callers_at_the_same_time_start_one_server() -> None:
    clients = [in_another_process("print(ensure_server(spec).base_url)") for _ in range(3)]
    urls = {client.communicate(timeout=PATIENCE_S)[0].strip() for client in clients}
    assert urls == {ensure_server(build_spec()).base_url}
    assert len(list_servers()) == 1


def test_other_flags_are_another_server() -> None:
    other = ServerSpec(model="fake", served_model_name="fake", max_model_len=4096, command=FAKE)
    assert ensure_server(build_spec()).base_url != ensure_server(other).base_url
    assert len(list_servers()) == 2


def test_a_killed_client_leaves_the_server_usable() -> None:
    client = in_another_process("print(ensure_server(spec).base_url, flush=True); sys.stdin.read()")
    assert client.stdout is not None
    url = client.stdout.readline().strip()
    client.kill()
    client.wait()
    assert ensure_server(build_spec()).base_url == url


def test_a_killed_server_is_started_again_by_the_next_caller() -> None:
    url = ensure_server(build_spec()).base_url
    (running,) = list_servers()
    os.killpg(running.pid, signal.SIGKILL)
    wait_until(lambda: not is_up(url))
    assert is_up(ensure_server(build_spec()).base_url)


def test_the_engine_restarts_a_server_that_is_killed_under_it(
    new_log: Callable[[], AnswerLog], quick: EngineOptions
) -> None:
    endpoint = ensure_server(build_spec())

    def kill_in_the_middle():
        for i, request in enumerate(build_requests(300)):
            if i == 200:
                os.killpg(list_servers()[0].pid, signal.SIGKILL)
            yield request

    outcome = answer_all(kill_in_the_middle(), endpoints=[endpoint], log=new_log(), options=quick)
    assert (outcome.answered, outcome.failures) == (300, [])


def test_a_slow_start_does_not_count_as_an_outage(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    script = f"test ! -e {second} || sleep 4; touch {second}; exec {sys.executable} -m {FAKE[2]} --port $0"
    endpoint = ensure_server(build_spec(command=("sh", "-c", script)))
    probe = Transport.probe

    async def slow_probe(self: Transport, endpoint: Endpoint) -> RequestFault | None:
        # The run checks for an outage between the start and the first answer.
        await asyncio.sleep(0.3)
        return await probe(self, endpoint)

    monkeypatch.setattr(Transport, "probe", slow_probe)

    def kill_before_the_first() -> Iterator[Request]:
        os.killpg(list_servers()[0].pid, signal.SIGKILL)
        yield from build_requests(3)

    options = dataclasses.replace(quick, initial_outage_timeout_s=3)
    outcome = answer_all(kill_before_the_first(), endpoints=[endpoint], log=new_log(), options=options)
    assert (outcome.answered, outcome.failures) == (3, [])


def test_a_server_that_ends_at_every_request_is_not_restarted_forever(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = ensure_server(build_spec())

    async def deadly_probe(self: Transport, endpoint: Endpoint) -> RequestFault | None:
        os.killpg(list_servers()[0].pid, signal.SIGKILL)
        return RequestFault("no_connection", "gone", FaultScope.ENDPOINT)

    monkeypatch.setattr(Transport, "probe", deadly_probe)

    def kill_before_the_first() -> Iterator[Request]:
        os.killpg(list_servers()[0].pid, signal.SIGKILL)
        yield from build_requests(3)

    with pytest.raises(EndpointError, match="was started 3 times and ended before it answered"):
        answer_all(kill_before_the_first(), endpoints=[endpoint], log=new_log(), options=quick)


def test_the_death_of_the_server_process_alone_ends_the_whole_group() -> None:
    url = ensure_server(build_spec()).base_url
    supervisor = psutil.Process(list_servers()[0].pid)
    (child,) = supervisor.children()
    child.kill()
    wait_until(lambda: list_servers()[0].state == "ended")
    assert is_up(ensure_server(build_spec()).base_url)
    assert url


def test_the_death_of_the_supervisor_ends_the_server() -> None:
    url = ensure_server(build_spec()).base_url
    os.kill(list_servers()[0].pid, signal.SIGKILL)
    wait_until(lambda: not is_up(url))


def test_an_idle_server_ends_by_itself(home: Path) -> None:
    url = ensure_server(build_spec(idle_timeout_s=1.5)).base_url
    wait_until(lambda: not is_up(url))
    wait_until(lambda: list_servers()[0].state == "ended")


def test_stop_ends_the_server_and_leaves_no_process(home: Path) -> None:
    url = ensure_server(build_spec()).base_url
    assert stop_servers("another") == []
    assert len(stop_servers("fake")) == 1
    assert not is_up(url)
    assert list_servers() == []
    assert list_group_members(home) == []


def test_stop_ends_a_server_that_ignores_sigterm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = (sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)")
    start_server_in_background(build_spec(command=stubborn))
    assert list_servers()[0].state == "starting"
    monkeypatch.setattr(server, "GRACE_PERIOD_S", -1.5)
    assert len(stop_servers()) == 1
    assert list_group_members(home) == []


def test_a_start_in_the_background_is_joined_by_the_next_caller() -> None:
    start_server_in_background(build_spec())
    (starting,) = list_servers()
    assert is_up(ensure_server(build_spec()).base_url)
    assert list_servers()[0].pid == starting.pid


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log() -> None:
    broken = (sys.executable, "-c", "raise SystemExit('the weights are gone')")
    with pytest.raises(ServerError, match="the weights are gone") as caught:
        ensure_server(build_spec(command=broken))
    assert "log" in str(caught.value.hint)


def test_a_server_that_never_answers_is_ended_after_the_timeout() -> None:
    mute = (sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(ServerError, match="did not answer within"):
        ensure_server(build_spec(command=mute), timeout_s=0.5)
    assert list_servers() == []


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        with pytest.raises(ServerError, match="is in use"):
            ensure_server(build_spec(port=squatter.getsockname()[1]))


def test_a_chosen_port_is_used() -> None:
    port = find_free_port()
    assert ensure_server(build_spec(port=port)).base_url == f"http://127.0.0.1:{port}/v1"
