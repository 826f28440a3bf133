"""The worker of lmms-eval: its protocol, stored answers, and both backends."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mvl_assets.errors import MvlError
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks import local_backend
from mvl_training.evaluation.benchmarks.lmms_worker import ServerBackend
from mvl_training.evaluation.benchmarks.local_backend import LocalBackend
from mvl_training.evaluation.benchmarks.protocol import AnswerJob, BackendError, BenchmarkQuestion
from mvl_training.evaluation.student_runner import StudentRunner
from mvl_training.runs.training_run import Checkpoint
from tests.patience import PATIENCE_S
from tests.servers import serving
from tests.training import tiny_model
from tests.training.evaluation.untrained import untrained_checkpoint

RED, BLUE = tiny_model.draw("circle", "red"), tiny_model.draw("square", "blue")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return untrained_checkpoint(tmp_path_factory.mktemp("untrained"))


def _question(*parts: str | bytes | Path, tokens: int = 6) -> dict[str, Any]:
    output: list[dict[str, str]] = []
    for part in parts:
        if isinstance(part, bytes):
            output.append({"image": base64.b64encode(part).decode()})
        else:
            output.append({"text": part} if isinstance(part, str) else {"video": str(part)})
    return {"messages": [{"role": "user", "parts": output}], "max_new_tokens": tokens}


def _exchange(job: dict[str, Any], *lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the real process writes to these lines of questions."""
    asked = "".join(json.dumps({"questions": line}) + "\n" for line in lines)
    command = [sys.executable, "-m", "mvl_training.evaluation.benchmarks.lmms_worker", json.dumps(job)]
    done = subprocess.run(
        command,
        input=asked,
        env=tiny_model.build_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _runner_job(checkpoint: Checkpoint, known: Path, **more: str) -> dict[str, Any]:
    return {"version": "v1", "checkpoint": str(checkpoint.export_dir), "answers_path": str(known), **more}


def test_the_worker_answers_line_by_line_and_ends_with_an_error_at_the_first_failure(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    frames = tmp_path / "film"
    frames.mkdir()
    for number in range(5):
        (frames / f"{number}.png").write_bytes(tiny_model.draw("circle", "red", at=(20 * number, 0)))
    lines = [[_question("First: ", RED, "Second: ", BLUE, "Which?"), _question("Hi")], [_question(frames, "What?")]]
    job = _runner_job(checkpoint, tmp_path / "known.jsonl")
    ready, first, second, broken = _exchange(job, *lines, [_question(b"no picture", "What?")], [_question("Ho")])
    assert ready == {"ready": True}
    runner = StudentRunner(checkpoint.export_dir)
    shown = [(frames / f"{number}.png").read_bytes() for number in (0, 2, 4)]
    expected = [["First: ", RED, "Second: ", BLUE, "Which?"], ["Hi"], [shown, "What?"]]
    output = [one["text"] for one in [*first["answers"], *second["answers"]]]
    assert output == [runner.generate_reply([("user", parts)], max_new_tokens=6) for parts in expected]
    assert len({one["question_id"] for one in first["answers"]}) == 2
    assert set(broken) == {"error", "hint"}, "no empty answer, and nothing after it"


def test_a_number_of_frames_replaces_that_of_training_and_has_answers_of_its_own(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    video = tmp_path / "film"
    video.mkdir()
    for number in range(5):
        (video / f"{number}.png").write_bytes(tiny_model.draw("circle", "red", at=(20 * number, 0)))
    question = BenchmarkQuestion.from_dict(_question(video, "What?"))
    job = AnswerJob(**_runner_job(checkpoint, tmp_path / "known.jsonl"), n_frames=7)
    shown = [(video / f"{number}.png").read_bytes() for number in (0, 0, 1, 2, 2, 3, 4)]
    runner = StudentRunner(checkpoint.export_dir)
    assert LocalBackend(job).answer([question]) == [
        runner.generate_reply([("user", [shown, "What?"])], max_new_tokens=6)
    ]
    gone = job.model_copy(update={"checkpoint": tmp_path / "no-export"})
    assert len(LocalBackend(gone).answer([question])) == 1
    for n_frames in (None, 8):
        with pytest.raises(MvlError, match="holds no exported model"):
            LocalBackend(gone.model_copy(update={"n_frames": n_frames})).answer([question])


def test_answered_questions_are_not_asked_again_unless_the_weights_change(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    job = AnswerJob(**_runner_job(checkpoint, tmp_path / "known.jsonl"))
    hi, ho = BenchmarkQuestion.from_dict(_question("Hi")), BenchmarkQuestion.from_dict(_question("Ho"))
    first = LocalBackend(job).answer([hi])
    # As a kill in the middle of a line leaves it.
    with (tmp_path / "known.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"key": "ab')
    gone = job.model_copy(update={"checkpoint": tmp_path / "no-export"})
    assert LocalBackend(gone).answer([hi]) == first
    with pytest.raises(MvlError, match="holds no exported model"):
        LocalBackend(gone.model_copy(update={"version": "v2"})).answer([hi])
    both = LocalBackend(job).answer([hi, ho])
    assert LocalBackend(gone).answer([ho, hi]) == both[::-1] and both[0] == first[0]


def test_two_processes_share_the_questions_and_give_the_same_answers(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_backend, "QUESTIONS_PER_TASK", 2)
    questions = [BenchmarkQuestion.from_dict(_question(RED, f"What is {n}?", tokens=4 + n % 2)) for n in range(6)]
    jobs = [AnswerJob(**_runner_job(checkpoint, tmp_path / f"{n}.jsonl"), n_processes=n) for n in (1, 2)]
    answers = []
    for job in jobs:
        with closing(LocalBackend(job)) as backend:
            answers.append(backend.answer(questions))
    assert answers[0] == answers[1] and len(set(answers[0])) > 1


def test_several_servers_share_the_questions(lake: Lake) -> None:
    questions = [BenchmarkQuestion.from_dict(_question(f"Question {n}")) for n in range(8)]
    with serving() as (first, one), serving() as (second, other):
        first.record_bodies = second.record_bodies = True
        urls = (one.base_url, other.base_url)
        job = AnswerJob(version="v1", base_urls=urls, model="fake", lake_root=lake.root)
        ServerBackend(job).answer(questions)
        assert len(first.bodies) + len(second.bodies) == 8


def test_a_missing_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no\.mp4"):
        BenchmarkQuestion.from_dict(_question(tmp_path / "no.mp4", "What?"))


def test_question_ids_change_with_any_part_of_the_question() -> None:
    questions = [
        _question(RED, BLUE, "What?"),
        _question(BLUE, RED, "What?"),
        _question(RED, "What?", BLUE),
        _question(RED, BLUE, "What"),
        _question(RED, BLUE, "What?", tokens=7),
    ]
    ids = [BenchmarkQuestion.from_dict(question).question_id for question in questions]
    assert len(set(ids)) == len(ids)
    assert BenchmarkQuestion.from_dict(_question(RED, BLUE, "What?")).question_id == ids[0]


def test_the_server_backend_sends_images_in_place_and_each_question_once(lake: Lake) -> None:
    questions = [
        BenchmarkQuestion.from_dict(_question("First: ", RED, "Second: ", BLUE, "Which?")),
        BenchmarkQuestion.from_dict(_question("Hi")),
    ]
    with serving() as (server, endpoint):
        server.record_bodies = True
        job = AnswerJob(version="v1", base_urls=(endpoint.base_url,), model="fake", lake_root=lake.root)
        output = ServerBackend(job).answer(questions)
        assert ServerBackend(job).answer(questions) == output
    assert len(server.bodies) == 2
    (asked,) = [body for body in server.bodies if len(body["messages"][0]["content"]) > 1]
    assert [part["type"] for part in asked["messages"][0]["content"]] == [
        *("text", "image_url", "text", "image_url", "text"),
    ]
    assert (asked["max_tokens"], asked["temperature"]) == (6, 0.0)
    assert all(text.startswith("answer ") for text in output) and len(set(output)) == 2


def test_a_refused_question_and_a_video_are_errors_of_the_server_backend(lake: Lake, tmp_path: Path) -> None:
    with serving(FakeServerConfig(fault_rates={"400": 1.0})) as (_, endpoint):
        job = AnswerJob(version="v1", base_urls=(endpoint.base_url,), model="fake", lake_root=lake.root)
        with pytest.raises(BackendError, match=r"1 of 1 questions failed"):
            ServerBackend(job).answer([BenchmarkQuestion.from_dict(_question("Hi"))])
        video = tmp_path / "film"
        video.mkdir()
        with pytest.raises(BackendError, match="has videos, which the server would not show"):
            ServerBackend(job).answer([BenchmarkQuestion.from_dict(_question(video, "What?"))])


def test_the_server_backend_sends_as_many_frames_of_a_video_as_the_checkpoint_was_trained_on(
    lake: Lake, tmp_path: Path
) -> None:
    video = tmp_path / "film"
    video.mkdir()
    for number in range(5):
        (video / f"{number}.png").write_bytes(RED if number % 2 else BLUE)
    with serving() as (server, endpoint):
        server.record_bodies = True
        job = AnswerJob(version="v1", base_urls=(endpoint.base_url,), model="fake", max_frames=3, lake_root=lake.root)
        ServerBackend(job).answer([BenchmarkQuestion.from_dict(_question(video, "What?"))])
        ServerBackend(job.model_copy(update={"n_frames": 7})).answer(
            [BenchmarkQuestion.from_dict(_question(video, "What?"))]
        )
    (part, text) = server.bodies[0]["messages"][0]["content"]
    assert (part["type"], text["type"]) == ("video_url", "text")
    scheme, _, frames = part["video_url"]["url"].partition(",")
    assert scheme == "data:video/jpeg;base64"
    sent = [Image.open(io.BytesIO(base64.b64decode(frame))).convert("RGB") for frame in frames.split(",")]
    sizes = {Image.open(io.BytesIO(data)).size for data in (RED, BLUE)}
    assert len(sent) == 3 and {frame.size for frame in sent} <= sizes
    spread = server.bodies[1]["messages"][0]["content"][0]["video_url"]["url"]
    assert len(spread.partition(",")[2].split(",")) == 7


def test_output_of_libraries_does_not_disturb_the_protocol(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\nprint('hello from a library')\natexit.register(print, 'bye')\n", encoding="utf-8"
    )
    job = {"version": "v1", "checkpoint": str(tmp_path), "answers_path": str(tmp_path / "known.jsonl")}
    command = [sys.executable, "-m", "mvl_training.evaluation.benchmarks.lmms_worker", json.dumps(job)]
    env = tiny_model.build_environment()
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    done = subprocess.run(command, input="", env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    # The first line is written before anything of ours runs.
    assert done.stdout.splitlines() == ["hello from a library", '{"ready": true}']
    assert "bye" in done.stderr
