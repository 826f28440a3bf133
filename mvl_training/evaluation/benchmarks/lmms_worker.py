"""Worker process that answers lmms-eval's questions: `python -m mvl_training.evaluation.benchmarks.lmms_worker JOB`.

lmms-eval runs in its own virtualenv, because its packages conflict with the project's. The worker runs in the
project's, asks one of two backends (`local` or `server`) and keeps their answers.

The protocol is JSON, one object per line. JOB is an `AnswerJob`; the first line written is `{"ready": true}`. For each
line read, `{"questions": [question, ...]}`, one is written: `{"answers": [{"text", "question_id", "cluster"}, ...]}`.
Any failure is written as `{"error", "hint"}` and ends the worker: an unanswered question must never be scored as wrong.
A question is {"messages": [{"role", "parts"}], "max_new_tokens"}; a part is {"text"}, {"image": base64}, or {"video":
path of a video or of a folder of frames}.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.natural_sort import natural_sort_key
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.local_server.server_spec import ServerSpec
from mvl_assets.media.image import MAX_SIDE
from mvl_assets.stages import BENCHMARK_ANSWERS
from mvl_training.evaluation.answer_file import iter_answer_lines

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


class AnswerJob(BaseModel):
    """The backend to ask, and where to keep its answers.

    With `checkpoint` the backend is `local`; without, it is `server`: the one at `base_url`, or one that is started.

    Attributes:
        version: Name of the weights; answers of other weights are not reused.
        checkpoint: Export folder to load (`local`).
        answers_path: JSON lines file that keeps the answers (`local`).
        base_url: A running OpenAI-compatible server (`server`).
        model: The model's name there.
        api_key_env: Environment variable with the server's key.
        server_spec: The server to start when there is no `base_url`.
        lake_root: The lake that keeps the answers (`server`).
        run_id: Run that the stored answers name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    checkpoint: Path | None = None
    answers_path: Path | None = None
    base_url: str | None = None
    model: str = "default"
    api_key_env: str | None = None
    server_spec: ServerSpec | None = None
    lake_root: str | None = None
    run_id: str = ""


class BackendError(MvlError):
    """A backend cannot ask a question, or got no answer to it."""


@dataclass(frozen=True, slots=True)
class VideoPath:
    """A video file, or a folder of its frames as image files."""

    path: Path


@dataclass(frozen=True, slots=True)
class BenchmarkQuestion:
    """One question: messages as (role, parts).

    `question_id` is the digest of the whole question: the same for every checkpoint, another for an edited question.
    `cluster` is that of its images and videos alone, empty without any: questions about one video are no independent
    evidence.
    """

    messages: tuple[tuple[str, tuple[str | bytes | VideoPath, ...]], ...]
    max_new_tokens: int
    question_id: str
    cluster: str

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BenchmarkQuestion:
        """Parse a question of the pipe.

        Raises:
            BackendError: A video file is missing.
        """
        messages = tuple((m["role"], tuple(_parse_part(part) for part in m["parts"])) for m in data["messages"])
        digest_input: list[Any] = [[role, [_to_digest_input(part) for part in parts]] for role, parts in messages]
        media = [part for _, parts in digest_input for part in parts if not isinstance(part, str)]
        return cls(
            messages,
            data["max_new_tokens"],
            compute_digest("benchmark question", digest_input, data["max_new_tokens"]),
            compute_digest("benchmark media", media) if media else "",
        )


def _parse_part(part: Mapping[str, str]) -> str | bytes | VideoPath:
    if "text" in part:
        return part["text"]
    return base64.b64decode(part["image"]) if "image" in part else VideoPath(Path(part["video"]))


def _to_digest_input(part: str | bytes | VideoPath) -> object:
    if isinstance(part, str):
        return part
    # "picture" and "film" are part of every question id: other words would make all stored answers unknown.
    if isinstance(part, bytes):
        return {"picture": compute_digest(part)}
    files = _list_frames(part.path) if part.path.is_dir() else [part.path]
    return {"film": [_digest_file(file) for file in files]}


def _list_frames(folder: Path) -> list[Path]:
    """Return the frames of a folder in the order of their numbers: frame_2 before frame_10."""
    frame_files = (f for f in folder.iterdir() if f.suffix.lower() in FRAME_SUFFIXES)
    return sorted(frame_files, key=lambda f: natural_sort_key(f.name))


@lru_cache(maxsize=1024)
def _digest_file(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()
    except OSError as error:
        raise BackendError(f"{file}: {error.strerror}", hint="the benchmark's videos are incomplete") from error


class LocalBackend:
    """Backend that runs the exported model in this process and appends every answer to a file at once."""

    def __init__(self, job: AnswerJob) -> None:
        assert job.checkpoint is not None and job.answers_path is not None
        self._checkpoint, self._answers_path, self._version = job.checkpoint, job.answers_path, job.version
        self._answers = _read_answers(self._answers_path)
        self._runner: Any = None

    def answer(self, questions: Sequence[BenchmarkQuestion]) -> list[str]:
        """Return the answers in order; only questions without a stored answer are asked."""
        self._answers_path.parent.mkdir(parents=True, exist_ok=True)
        with self._answers_path.open("a", encoding="utf-8") as out:
            for question in questions:
                key = compute_digest(self._version, question.question_id)
                if key in self._answers:
                    continue
                self._answers[key] = self._generate(question)
                # A line break first: the line before may have been torn by a kill.
                out.write("\n" + json.dumps({"key": key, "text": self._answers[key]}))
                out.flush()
        return [self._answers[compute_digest(self._version, question.question_id)] for question in questions]

    def _generate(self, question: BenchmarkQuestion) -> str:
        from mvl_training.evaluation.student_runner import StudentRunner

        # Loaded for the first question without a stored answer: a rerun that finds all answers loads nothing.
        if self._runner is None:
            self._runner = StudentRunner(self._checkpoint)
        messages = [
            (role, [self._load_frames(part) if isinstance(part, VideoPath) else part for part in parts])
            for role, parts in question.messages
        ]
        return str(self._runner.generate_reply(messages, max_new_tokens=question.max_new_tokens))

    def _load_frames(self, video: VideoPath) -> list[bytes]:
        """Return at most as many frames as the checkpoint's stage was trained on."""
        from mvl_assets.common.pick_evenly import pick_evenly
        from mvl_assets.media.video import sample_frames

        max_frames = self._runner.processor.frame_limits.max_frames
        if not video.path.is_dir():
            return [data for _, data in sample_frames(video.path, max_frames=max_frames)]
        frames = _list_frames(video.path)
        return [frames[i].read_bytes() for i in pick_evenly(len(frames), max_frames, "down")]


def _read_answers(file: Path) -> dict[str, str]:
    """Return stored answers by key."""
    return {row["key"]: row["text"] for row in iter_answer_lines(file) if row.keys() >= {"key", "text"}}


class ServerBackend:
    """Backend that asks an OpenAI-compatible server by the pipeline's own client and stores answers in the lake."""

    def __init__(self, job: AnswerJob) -> None:
        from mvl_assets.lake.lake import Lake

        assert job.lake_root is not None
        self._job = job
        self._lake = Lake(job.lake_root)
        self._endpoint: Endpoint | None = None

    def answer(self, questions: Sequence[BenchmarkQuestion]) -> list[str]:
        """Return the answers in order; a server is started only if one is missing.

        Raises:
            BackendError: A question failed, or shows a video.
        """
        from mvl_assets.inference.request import ModelRef
        from mvl_assets.model_stage.loop import answer_requests
        from mvl_assets.model_stage.stage import ServedModel

        job = self._job
        images: dict[str, bytes] = {}
        requests = [self._build_request(question, images) for question in questions]
        texts, failures = answer_requests(
            self._lake,
            BENCHMARK_ANSWERS,
            compute_digest(job.model, job.version)[:16],
            ServedModel(ModelRef(job.model, job.version), lambda: [self._ensure_endpoint()]),
            requests,
            run_id=job.run_id,
            fetch_images=lambda ids: {i: images[i] for i in ids},
        )
        if failures:
            raise BackendError(
                f"{len(failures)} of {len(requests)} questions failed, the first with {failures[0].error}:"
                f" {failures[0].message}",
                hint="a rerun asks only what is missing",
            )
        return [texts[request.key] for request in requests]

    def _ensure_endpoint(self) -> Endpoint:
        from mvl_assets.inference.local_server.server import ensure_server

        job = self._job
        if self._endpoint is None and job.server_spec is not None:
            self._endpoint = dataclasses.replace(ensure_server(job.server_spec), max_image_side=MAX_SIDE)
        elif self._endpoint is None:
            assert job.base_url is not None
            self._endpoint = Endpoint(
                base_url=job.base_url, model=job.model, api_key_env=job.api_key_env, max_image_side=MAX_SIDE
            )
        return self._endpoint

    def _build_request(self, question: BenchmarkQuestion, images: dict[str, bytes]) -> Any:
        from mvl_assets.inference.request import ModelRef, Request

        messages = []
        for role, parts in question.messages:
            content: list[Mapping[str, str]] = []
            for part in parts:
                if isinstance(part, VideoPath):
                    raise BackendError(
                        "the server backend supports images only, and this benchmark has videos",
                        hint="use the local backend (backend: local)",
                    )
                if isinstance(part, str):
                    content.append({"type": "text", "text": part})
                else:
                    images[compute_digest(part)] = part
                    content.append({"type": "image", "image": compute_digest(part)})
            messages.append({"role": role, "content": content})
        return Request(
            messages=tuple(messages),
            model=ModelRef(self._job.model, self._job.version),
            sampling={"temperature": 0.0, "max_tokens": question.max_new_tokens},
            prompt_name=BENCHMARK_ANSWERS,
            prompt_hash="as-asked",
        )


def answer_lines(
    answer_fn: Callable[[Sequence[BenchmarkQuestion]], list[str]], lines: Iterable[str], out: TextIO
) -> None:
    """Answer line after line until the other process closes the pipe."""
    for line in lines:
        questions = [BenchmarkQuestion.from_dict(data) for data in json.loads(line)["questions"]]
        texts = answer_fn(questions)
        answers = [
            {"text": text, "question_id": question.question_id, "cluster": question.cluster}
            for text, question in zip(texts, questions, strict=True)
        ]
        _write_message(out, {"answers": answers})


def _write_message(out: TextIO, message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message, ensure_ascii=True) + "\n")
    out.flush()


def main(arguments: Sequence[str]) -> int:
    """Answer questions from standard input; return the exit status."""
    # Libraries print to stdout; the protocol gets a file descriptor of its own.
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    try:
        job = AnswerJob.model_validate_json(arguments[0])
        backend = ServerBackend(job) if job.checkpoint is None else LocalBackend(job)
        _write_message(out, {"ready": True})
        answer_lines(backend.answer, sys.stdin, out)
    except MvlError as error:
        _write_message(out, {"error": error.message, "hint": error.hint})
        return 1
    except Exception as error:
        traceback.print_exc()
        _write_message(out, {"error": f"{type(error).__name__}: {error}", "hint": None})
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
