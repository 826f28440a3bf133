"""A client process that is killed or interrupted: what has arrived is stored, and only the rest is sent again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_requests
from tests.patience import PATIENCE_S
from tests.servers import serving

NewLog = Callable[[], AnswerLog]


CLIENT = """
import sys
from pathlib import Path
from tests.inference.helpers import build_requests
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.lake.lake import Lake

lake, url, count = sys.argv[1:]
log = Lake(lake).get_answer_log("rewritten", "source")
endpoint = Endpoint(base_url=url, model="fake", start_concurrency=32, max_concurrency=32)
options = EngineOptions(hedge_requests=False)
answer_all(build_requests(int(count)), endpoints=[endpoint], log=log, options=options)
"""
AT_ONCE = 32


def start_client(tmp_path: Path, url: str, count: int, before: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", before + CLIENT, str(tmp_path / "lake"), url, str(count)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.mark.parametrize("requests_before_the_kill", [30, 240])
def test_a_killed_client_loses_no_answer_and_sends_few_requests_twice(
    requests_before_the_kill: int, tmp_path: Path, new_log: NewLog
) -> None:
    count = 400
    with serving(FakeServerConfig(latency_s=0.05)) as (server, endpoint):
        client = start_client(tmp_path, endpoint.base_url, count)
        while sum(server.request_counts.values()) < requests_before_the_kill:
            assert client.poll() is None
            time.sleep(0.005)
        client.kill()
        client.wait()
        n_stored = new_log().count()
        assert start_client(tmp_path, endpoint.base_url, count).wait(PATIENCE_S) == 0
        assert new_log().count() == count
        asked_twice = sum(n - 1 for n in server.request_counts.values())
        assert asked_twice <= count - n_stored, "what is stored is not asked for again"
    assert len(server.request_counts) == count


def test_ctrl_c_stores_the_answers_that_have_arrived(tmp_path: Path, new_log: NewLog) -> None:
    with serving(FakeServerConfig(latency_s=0.05)) as (server, endpoint):
        client = start_client(tmp_path, endpoint.base_url, 5000)
        while sum(server.answer_counts.values()) < 100:
            assert client.poll() is None
            time.sleep(0.005)
        client.send_signal(signal.SIGINT)
        assert client.wait(PATIENCE_S) not in (0, -signal.SIGKILL)
        assert new_log().count() >= 100 - AT_ONCE
        outcome = answer_all(build_requests(5000)[:50], endpoints=[endpoint], log=new_log())
        assert outcome.attempts_sent == 0


INTERRUPTED = """
import signal
class Interrupted(BaseException):
    pass
def interrupt(*_):
    raise Interrupted
signal.signal(signal.SIGTERM, interrupt)
"""


@pytest.mark.parametrize("answers_before", [40, 130, 260])
def test_an_interrupt_anywhere_stores_the_answers_that_have_arrived(
    answers_before: int, tmp_path: Path, new_log: NewLog
) -> None:
    with serving(FakeServerConfig(latency_s=0.02)) as (server, endpoint):
        client = start_client(tmp_path, endpoint.base_url, 100_000, INTERRUPTED)
        while sum(server.answer_counts.values()) < answers_before:
            assert client.poll() is None
            time.sleep(0.005)
        client.send_signal(signal.SIGTERM)
        assert client.wait(PATIENCE_S) == 1
        assert new_log().count() >= answers_before - AT_ONCE


INTERRUPTED_IN_THE_PARSER = """
import os
from aiohttp.streams import StreamReader
feed_data, n_calls = StreamReader.feed_data, 0
def feed_data_and_interrupt(self, *arguments):
    global n_calls
    n_calls += 1
    if n_calls == 40:
        os.kill(os.getpid(), signal.SIGTERM)
    return feed_data(self, *arguments)
StreamReader.feed_data = feed_data_and_interrupt
"""


def test_an_interrupt_inside_the_parser_of_replies_ends_the_run(tmp_path: Path, new_log: NewLog) -> None:
    """The parser takes any exception for a broken body, which would be one more request to send again."""
    with serving(FakeServerConfig(latency_s=0.02)) as (_, endpoint):
        client = start_client(tmp_path, endpoint.base_url, 100_000, INTERRUPTED + INTERRUPTED_IN_THE_PARSER)
        try:
            assert client.wait(PATIENCE_S) == 1
        finally:
            client.kill()
        assert new_log().count() >= 40 - AT_ONCE
