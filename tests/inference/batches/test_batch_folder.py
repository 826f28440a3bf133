"""Batches in a folder, which `vllm run-batch` answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.profile import ModelProfile
from mvl_assets.errors import MvlError
from mvl_assets.inference.batches.batch_files import build_line, iter_results
from mvl_assets.inference.client.chat_protocol import Reply, build_request_body
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.endpoint import BatchOptions, Endpoint, EndpointError
from mvl_assets.inference.endpoints import resolve_endpoints
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Progress
from mvl_assets.inference.request import Request, build_choice_output, build_json_output
from mvl_assets.inference.testing.fake_server import FakeServer
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_request, build_requests
from tests.patience import PATIENCE_S, wait_until

NewLog = Callable[[], AnswerLog]
OPTIONS = BatchOptions(max_requests=8, poll_interval_s=0.02)


def endpoint_of(folder: Path) -> Endpoint:
    return Endpoint(base_url=f"file://{folder}", model="fake", batch=OPTIONS)


def build_output(line: Mapping[str, Any], error: object = None, status: int = 200) -> bytes:
    """A line as vLLM writes it."""
    body = FakeServer().build_answer(line["body"]) if status == 200 else None
    response = {"status_code": status, "request_id": "vllm-batch-1", "body": body}
    output = {"id": "vllm-1", "custom_id": line["custom_id"], "response": response, "error": error}
    return json.dumps(output).encode() + b"\n"


def list_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("mvl-*.jsonl"))


def answer_files(folder: Path) -> int:
    """What `vllm run-batch -i F -o answers/F` does with every file that has no answers; returns their number."""
    unanswered = [path for path in list_files(folder) if not (folder / "answers" / path.name).exists()]
    for path in unanswered:
        outputs = [build_output(json.loads(line)) for line in path.read_bytes().splitlines()]
        (folder / "answers" / path.name).write_bytes(b"".join(outputs))
    return len(unanswered)


@contextmanager
def answering(folder: Path) -> Iterator[list[int]]:
    """Answers files as long as the block runs; the list gets the number of each round that found some."""
    ended, counts = threading.Event(), []

    def run() -> None:
        while not ended.wait(0.02):
            counts.extend([n] if (n := answer_files(folder)) else [])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join(PATIENCE_S)


def test_requests_are_answered_through_files(new_log: NewLog, quick: EngineOptions, tmp_path: Path) -> None:
    folder, log = tmp_path / "shared batches", new_log()
    endpoint = Endpoint(base_url=folder.as_uri(), model="fake", batch=OPTIONS)
    with answering(folder) as counts:
        outcome = answer_all(build_requests(20), endpoints=[endpoint], log=log, options=quick)
    assert (outcome.answered, outcome.failures, sum(counts)) == (20, [], 3)
    assert log.batches.list_batches() == []
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    again = answer_all(build_requests(20), endpoints=[endpoint], log=log, options=quick)
    assert (again.cache_hits, again.attempts_sent) == (20, 0)


def test_a_run_that_was_stopped_takes_the_answers_of_its_files(
    new_log: NewLog, quick: EngineOptions, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if any(state.startswith("waiting") for state in progress.batch_states):
            raise Stopped

    log, endpoint = new_log(), endpoint_of(tmp_path)
    with pytest.raises(Stopped):
        answer_all(build_requests(5), endpoints=[endpoint], log=log, options=quick, progress_callback=stop)
    (batch,) = log.batches.list_batches()
    assert [path.name for path in list_files(tmp_path)] == [batch.batch_id] == [f"mvl-{batch.name}.jsonl"]
    with pytest.raises(EndpointError, match="would be paid twice"):
        answer_all(build_requests(5), endpoints=[Endpoint("http://127.0.0.1:9/v1", "fake")], log=log, options=quick)
    assert answer_files(tmp_path) == 1
    outcome = answer_all(build_requests(5), endpoints=[endpoint], log=log, options=quick)
    assert (outcome.answered, outcome.attempts_sent, list_files(tmp_path)) == (5, 0, [])


def test_half_a_file_of_answers_is_waited_for(new_log: NewLog, quick: EngineOptions, tmp_path: Path) -> None:
    states: list[str] = []
    outcomes: list[Any] = []

    def run() -> None:
        outcomes.append(
            answer_all(
                build_requests(4),
                endpoints=[endpoint_of(tmp_path)],
                log=log,
                options=quick,
                progress_callback=lambda progress: states.extend(progress.batch_states),
            )
        )

    log = new_log()
    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: len(list_files(tmp_path)) == 1)
    (path,) = list_files(tmp_path)
    outputs = b"".join(build_output(json.loads(line)) for line in path.read_bytes().splitlines())
    answers = tmp_path / "answers" / path.name
    answers.write_bytes(outputs[:-1])
    n_states = len(states)
    wait_until(lambda: len(states) > n_states + 3)
    assert not outcomes and path.exists()
    answers.write_bytes(outputs)
    thread.join(PATIENCE_S)
    assert outcomes[0].answered == 4


def test_errors_of_single_lines_are_read_as_vllm_writes_them(tmp_path: Path) -> None:
    line = {"custom_id": "k", "body": {}}
    too_long = {"error": {"message": "maximum context length", "type": "BadRequestError", "param": None, "code": 400}}
    path = tmp_path / "answers.jsonl"
    path.write_bytes(build_output(line, too_long, 400) + build_output(line, "no stream mode", 400))
    (_, first), (_, second) = iter_results(path)
    assert isinstance(first, RequestFault) and isinstance(second, RequestFault)
    assert (first.error, first.message, first.scope) == (
        "http_400",
        "HTTP 400: maximum context length",
        FaultScope.REQUEST,
    )
    assert second.message == "HTTP 400: no stream mode"


def test_a_folder_that_cannot_be_used_is_named(new_log: NewLog, quick: EngineOptions, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    endpoint = endpoint_of(tmp_path / "file")
    with pytest.raises(EndpointError, match=r"batches cannot be put into .*file.*correct base_urls"):
        answer_all(build_requests(2), endpoints=[endpoint], log=new_log(), options=quick)


def test_a_profile_names_a_folder_only_for_batches() -> None:
    model = ModelProfile(
        name="m", revision="1", supports_images=True, base_urls=["file:///shared/batches"], mode="batch"
    )
    (endpoint,) = resolve_endpoints(model)  # type: ignore[misc]
    assert (endpoint.batch_folder, endpoint.output_form) == (Path("/shared/batches"), "vllm")
    with pytest.raises(MvlError, match="mode: batch"):
        resolve_endpoints(model.model_copy(update={"mode": "online"}))
    with pytest.raises(MvlError, match="not a URL"):
        resolve_endpoints(model.model_copy(update={"base_urls": ["file://host/batches"]}))


# In a process of its own: vLLM changes the one that imports it.
VLLM_CHECK = """
import json, sys
from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
patch_cpu_torch()
from vllm.entrypoints.launchers.run_batch import BatchRequestInput, BatchRequestOutput, BatchResponseData
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
lines, completion = json.load(sys.stdin)
read = [BatchRequestInput.model_validate_json(line) for line in lines]
body = ChatCompletionResponse.model_validate(completion)
output = BatchRequestOutput(
    id="1", custom_id="k", response=BatchResponseData(request_id="1", body=body), error=None
)
print(json.dumps([[(r.custom_id, r.body.model, r.body.model_extra) for r in read], output.model_dump_json()]))
"""


@pytest.mark.server
@pytest.mark.soak
def test_vllm_reads_the_lines_and_its_answers_are_read(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    requests: list[Request] = [
        build_request("question"),
        build_request("question", output=build_json_output(schema)),
        build_request("question", output=build_choice_output("Yes", "No")),
    ]
    bodies = [build_request_body(request, endpoint_of(tmp_path), {}) for request in requests]
    lines = [build_line(request.key, body).decode() for request, body in zip(requests, bodies, strict=True)]
    completion = FakeServer().build_answer(json.loads(bodies[2]))
    checked = subprocess.run(
        [sys.executable, "-c", VLLM_CHECK],
        input=json.dumps([lines, completion]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr[-3000:]
    read, output = json.loads(checked.stdout.splitlines()[-1])
    # Fields that vLLM does not know would be taken and ignored.
    assert read == [[request.key, "fake", extra] for request, (_, _, extra) in zip(requests, read, strict=True)]
    assert not any(extra for _, _, extra in read)
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{output}\n")
    ((key, reply),) = iter_results(path)
    assert key == "k" and isinstance(reply, Reply)
    assert reply.text in ("Yes", "No") and "Yes" in (reply.first_token_logprobs or "")
