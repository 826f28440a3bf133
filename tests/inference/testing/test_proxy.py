"""The logging proxy counts what is asked and changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mvl_assets.common.free_port import find_free_port
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.inference.testing.proxy import count_requests, read_journal
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_requests
from tests.servers import serving, wait_for


def test_the_journal_holds_every_request_once_and_its_answer(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, tmp_path: Path
) -> None:
    journal, port = tmp_path / "requests.jsonl", find_free_port()
    with serving(FakeServerConfig(fault_by_marker={"question 3": "500"}, n_fault_attempts=1)) as (server, endpoint):
        upstream = endpoint.base_url.removesuffix("/v1")
        command = [sys.executable, "-m", "mvl_assets.inference.testing.proxy", "--upstream", upstream]
        proxy = subprocess.Popen([*command, "--port", str(port), "--journal", str(journal)])
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            through = Endpoint(f"http://127.0.0.1:{port}/v1", "fake")
            outcome = answer_all(build_requests(10), endpoints=[through], log=new_log(), options=quick)
        finally:
            proxy.kill()
            proxy.wait()
        assert (outcome.answered, outcome.attempts_sent) == (10, 11)
        assert count_requests(journal) == server.request_counts
    answers = [entry.status for entry in read_journal(journal) if entry.event == "answered"]
    assert sorted(answers) == [200] * 10 + [500]  # type: ignore[type-var]
