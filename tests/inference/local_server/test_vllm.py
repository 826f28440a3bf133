"""The engine and the lease against a real vLLM server."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import psutil
import pytest

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import RunOutcome
from mvl_assets.inference.request import (
    TEXT_OUTPUT,
    ModelRef,
    OutputFormat,
    Request,
    build_choice_output,
    build_json_output,
)
from mvl_assets.lake.answers import AnswerLog
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.server

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string", "maxLength": 60},
        "answer": {"type": "string", "maxLength": 12},
    },
    "required": ["reasoning", "answer"],
    "additionalProperties": False,
}


def ask(text: str, output: OutputFormat = TEXT_OUTPUT, max_tokens: int = 24, **sampling: object) -> Request:
    return Request(
        messages=({"role": "user", "content": text},),
        model=ModelRef("SmolLM2-135M-Instruct", "1", supports_images=False),
        sampling={"max_tokens": max_tokens, "temperature": 0, **sampling},
        prompt_name="test",
        prompt_hash="0" * 32,
        output=output,
    )


def rows(log: AnswerLog) -> dict[str, dict]:
    return {row["request_key"]: row for batch in log.scan() for row in batch.to_pylist()}


def listening_on(endpoint: Endpoint) -> psutil.Process:
    port = int(endpoint.base_url.split(":")[2].split("/")[0])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    raise AssertionError(f"no process listens on port {port}")


def test_text_schema_choice_and_sampling_with_a_seed(vllm_server: Endpoint, new_log: Callable[[], AnswerLog]) -> None:
    text = ask("Name a colour.")
    schema = ask("What is 2 + 3?", build_json_output(SCHEMA), max_tokens=96)
    choice = ask("Is water wet? Answer Yes or No.", build_choice_output("Yes", "No"))
    # A seed with temperature kills the CPU build; the engine does not send it there.
    sampled = ask("Say hello.", temperature=0.8, seed=7)
    outcome = answer_all([text, schema, choice, sampled], endpoints=[vllm_server], log=new_log())
    assert (outcome.answered, outcome.failures) == (4, [])
    stored = rows(new_log())
    assert stored[text.key]["text"].strip()
    assert stored[text.key]["completion_tokens"] > 0
    assert stored[schema.key]["finish_reason"] == "stop"
    assert set(json.loads(stored[schema.key]["text"])) == {"reasoning", "answer"}
    assert stored[choice.key]["text"] in ("Yes", "No")
    logprobs = json.loads(stored[choice.key]["first_token_logprobs"])
    yes, no = math.exp(logprobs["Yes"]), math.exp(logprobs["No"])
    assert 0 < yes / (yes + no) < 1


def test_a_prompt_too_long_for_the_model_fails_alone(vllm_server: Endpoint, new_log: Callable[[], AnswerLog]) -> None:
    long, short = ask("word " * 4000), ask("Name a fruit.", max_tokens=4)
    outcome = answer_all([long, short], endpoints=[vllm_server], log=new_log())
    assert [(f.request_key, f.error, f.attempts) for f in outcome.failures] == [(long.key, "http_400", 1)]
    assert outcome.answered == 1


@pytest.mark.soak
def test_a_killed_vllm_is_restarted_and_no_request_is_lost(
    vllm_server: Endpoint, new_log: Callable[[], AnswerLog]
) -> None:
    # Keeps the server busy long enough to be killed with rows in flight.
    requests = [ask(f"Tell a story about the number {i}.", max_tokens=200) for i in range(6)]
    options = EngineOptions(progress_interval_s=0)
    outcomes: list[RunOutcome] = []
    in_flight = threading.Event()

    def report(progress: Any) -> None:
        if progress.in_flight:
            in_flight.set()

    def run() -> None:
        outcomes.append(
            answer_all(requests, endpoints=[vllm_server], log=new_log(), progress_callback=report, options=options)
        )

    before = listening_on(vllm_server)
    client = threading.Thread(target=run)
    client.start()
    assert in_flight.wait(PATIENCE_S)
    os.kill(before.pid, signal.SIGKILL)
    client.join(PATIENCE_S)
    assert not client.is_alive()
    assert (outcomes[0].answered, outcomes[0].failures) == (6, [])
    assert outcomes[0].attempts_sent > 6
    assert not before.is_running() or before.status() == psutil.STATUS_ZOMBIE
