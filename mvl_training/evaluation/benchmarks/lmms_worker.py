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

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, TextIO

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.media.image import MAX_SIDE, inspect_image
from mvl_assets.stages import BENCHMARK_ANSWERS
from mvl_training.evaluation.benchmarks.local_backend import LocalBackend, load_frames
from mvl_training.evaluation.benchmarks.protocol import AnswerJob, BackendError, BenchmarkQuestion, VideoPath


class ServerBackend:
    """Backend that asks OpenAI-compatible servers by the pipeline's own client and stores answers in the lake."""

    def __init__(self, job: AnswerJob) -> None:
        from mvl_assets.lake.lake import Lake

        assert job.lake_root is not None
        self._job = job
        self._lake = Lake(job.lake_root)
        self._endpoints: list[Endpoint] = []

    def answer(self, questions: Sequence[BenchmarkQuestion]) -> list[str]:
        """Return the answers in order; a server is started only if one is missing.

        Raises:
            BackendError: A question failed, or shows a video that the server cannot show.
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
            ServedModel(ModelRef(job.model, job.version), self._ensure_endpoints),
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

    def close(self) -> None:
        """Do nothing: a started server ends by itself when it is idle."""

    def _ensure_endpoints(self) -> list[Endpoint]:
        from mvl_assets.inference.local_server.server import ensure_server

        job = self._job
        if not self._endpoints and job.server_spec is not None:
            self._endpoints = [dataclasses.replace(ensure_server(job.server_spec), max_image_side=MAX_SIDE)]
        elif not self._endpoints:
            self._endpoints = [
                Endpoint(base_url=url, model=job.model, api_key_env=job.api_key_env, max_image_side=MAX_SIDE)
                for url in job.base_urls
            ]
        return self._endpoints

    def _build_request(self, question: BenchmarkQuestion, images: dict[str, bytes]) -> Any:
        from mvl_assets.inference.request import ModelRef, Request

        messages = []
        for role, parts in question.messages:
            content: list[Mapping[str, Any]] = []
            for part in parts:
                if isinstance(part, str):
                    content.append({"type": "text", "text": part})
                elif isinstance(part, VideoPath):
                    content.append(
                        {"type": "video", "frames": [_add_image(images, f) for f in self._load_frames(part)]}
                    )
                else:
                    content.append({"type": "image", "image": _add_image(images, part)})
            messages.append({"role": role, "content": content})
        n_images = sum(isinstance(part, bytes) for _, parts in question.messages for part in parts)
        return Request(
            messages=tuple(messages),
            model=ModelRef(self._job.model, self._job.version),
            sampling={"temperature": 0.0, "max_tokens": question.max_new_tokens},
            prompt_name=BENCHMARK_ANSWERS,
            # Several images were cut into tiles before: answers from then are not reused.
            prompt_hash="as-asked-padded" if n_images > 1 else "as-asked",
        )

    def _load_frames(self, video: VideoPath) -> list[bytes]:
        if self._job.max_frames is None:
            raise BackendError(
                "this benchmark has videos, which the server would not show as the checkpoint's training did",
                hint="use the local backend (backend: local)",
            )
        frames = load_frames(video, self._job.max_frames, self._job.n_frames)
        if len(sizes := {(image.width, image.height) for image in map(inspect_image, frames)}) > 1:
            raise BackendError(
                f"{video.path}: its frames have {len(sizes)} sizes, and a server takes those of one size only",
                hint="use the local backend (backend: local)",
            )
        return frames


def _add_image(images: dict[str, bytes], data: bytes) -> str:
    """Add an image to those of a request, and return its id."""
    image_id = compute_digest(data)
    images[image_id] = data
    return image_id


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
        with closing(backend):
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
