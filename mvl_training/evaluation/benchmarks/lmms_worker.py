"""Answers questions for a process of another environment: `python -m mvl_training.evaluation.benchmarks.lmms_worker JOB`.

Belongs here: the pipe to lmms-eval, whose packages cannot live beside ours, and remembering what was answered. Does
not: the model (`mvl_training.evaluation.runner`), HTTP (`mvl_assets.inference`), tasks and scores (lmms-eval).

The protocol is JSON, one object a line. JOB is an `AnswerJob`; the first line written says whether it can be done. To
each line read, `{"ask": [question, ...]}`, one is written, `{"answers": [{"text", "question_id"}, ...]}`. Trouble of
any kind is `{"error", "hint"}` and the end: a question that was not answered must never be scored as wrong.
A question is {"messages": [{"role", "parts"}], "max_new_tokens"}; a part is {"text"}, {"picture": base64}, or {"film":
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

from mvl_assets.common.digest import digest_hex
from mvl_assets.common.natural_sort import natural
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.local_server.server_spec import ServeSpec
from mvl_assets.media.image import LONGEST

STAGE = "benchmarks"
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


class AnswerJob(BaseModel):
    """Whom to ask, and where to keep the answers. `version` names the weights: other weights are asked anew.

    With `checkpoint` an export is loaded here, and its answers are lines of the file `known`. Else a server is asked:
    the one at `base_url`, which knows the model as `model`, or the one `serve` describes, started if need be; answers
    are then rows of `lake`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    checkpoint: Path | None = None
    known: Path | None = None
    base_url: str | None = None
    model: str = "default"
    api_key_env: str | None = None
    serve: ServeSpec | None = None
    lake: str | None = None
    run_id: str = ""


class NotAnswerable(MvlError):
    """A question this side cannot ask, or one that got no answer."""


@dataclass(frozen=True, slots=True)
class Film:
    """A video file, or a folder of its frames as pictures."""

    path: Path


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. `messages` are (role, parts). Its id is the digest of all that is asked: the same for every
    checkpoint, another one for an edited question."""

    messages: tuple[tuple[str, tuple[str | bytes | Film, ...]], ...]
    max_new_tokens: int
    question_id: str

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Asked:
        messages = tuple((m["role"], tuple(_part(part) for part in m["parts"])) for m in data["messages"])
        named = [[role, [_identity(part) for part in parts]] for role, parts in messages]
        return cls(messages, data["max_new_tokens"], digest_hex("benchmark question", named, data["max_new_tokens"]))


def _part(part: Mapping[str, str]) -> str | bytes | Film:
    if "text" in part:
        return part["text"]
    return base64.b64decode(part["picture"]) if "picture" in part else Film(Path(part["film"]))


def _identity(part: str | bytes | Film) -> object:
    if isinstance(part, str):
        return part
    if isinstance(part, bytes):
        return {"picture": digest_hex(part)}
    files = _frames(part.path) if part.path.is_dir() else [part.path]
    return {"film": [_file_digest(file) for file in files]}


def _frames(folder: Path) -> list[Path]:
    """In the order of their numbers: frame_2 before frame_10."""
    found = (f for f in folder.iterdir() if f.suffix.lower() in FRAME_SUFFIXES)
    return sorted(found, key=lambda f: natural(f.name))


@lru_cache(maxsize=1024)
def _file_digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()
    except OSError as error:
        raise NotAnswerable(f"{file}: {error.strerror}", hint="the benchmark's films are not complete") from error


class RunnerSide:
    """Answers with a `mvl_training.evaluation.runner.Runner`; what it said is appended to a file as it comes."""

    def __init__(self, job: AnswerJob) -> None:
        assert job.checkpoint is not None and job.known is not None
        self._checkpoint, self._file, self._version = job.checkpoint, job.known, job.version
        self._known = _read_known(self._file)
        self._runner: Any = None

    def answer(self, questions: Sequence[Asked]) -> list[str]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as out:
            for question in questions:
                key = digest_hex(self._version, question.question_id)
                if key in self._known:
                    continue
                self._known[key] = self._reply(question)
                # A line break first: the line before may have been torn by a kill.
                out.write("\n" + json.dumps({"key": key, "text": self._known[key]}))
                out.flush()
        return [self._known[digest_hex(self._version, question.question_id)] for question in questions]

    def _reply(self, question: Asked) -> str:
        from mvl_training.evaluation.runner import Runner

        # Loaded by the first question that has no answer yet: a rerun that finds all of them loads nothing.
        if self._runner is None:
            self._runner = Runner(self._checkpoint)
        messages = [
            (role, [self._shown(part) if isinstance(part, Film) else part for part in parts])
            for role, parts in question.messages
        ]
        return str(self._runner.reply(messages, max_new_tokens=question.max_new_tokens))

    def _shown(self, film: Film) -> list[bytes]:
        """As many frames as the checkpoint's stage was trained on."""
        from mvl_assets.media.tiles import pick_frames
        from mvl_assets.media.video import sample_frames

        most = self._runner.processor.frames
        if not film.path.is_dir():
            return [data for _, data in sample_frames(film.path, most=most)]
        frames = _frames(film.path)
        return [frames[i].read_bytes() for i in pick_frames(len(frames), most)]


def _read_known(file: Path) -> dict[str, str]:
    """Answers by key. A line that a kill tore does not count."""
    known: dict[str, str] = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                known[row["key"]] = row["text"]
            except (ValueError, KeyError, TypeError):
                continue
    return known


class ServerSide:
    """Asks an OpenAI-compatible server with the pipeline's own client; answers are kept in the lake."""

    def __init__(self, job: AnswerJob) -> None:
        from mvl_assets.lake.lake import Lake

        assert job.lake is not None
        self._job = job
        self._log = Lake(job.lake).answers(STAGE, digest_hex(job.model, job.version)[:16])
        self._endpoint: Endpoint | None = None

    def answer(self, questions: Sequence[Asked]) -> list[str]:
        from mvl_assets.inference.engine import answer_all

        pictures: dict[str, bytes] = {}
        requests = [self._request(question, pictures) for question in questions]
        outcome = answer_all(
            requests,
            endpoints=[self._server()],
            log=self._log,
            pictures=lambda ids: {i: pictures[i] for i in ids},
            run_id=self._job.run_id,
        )
        if outcome.failures:
            first, failed = outcome.failures[0], len(outcome.failures)
            raise NotAnswerable(
                f"{failed} of {len(requests)} questions failed, the first with {first.error}: {first.message}",
                hint="a rerun asks only what is missing",
            )
        said = self._log.get([request.key for request in requests], ["text"])
        return [said[request.key]["text"] for request in requests]

    def _server(self) -> Endpoint:
        from mvl_assets.inference.local_server.server import ensure_server

        job = self._job
        if self._endpoint is None and job.serve is not None:
            self._endpoint = dataclasses.replace(ensure_server(job.serve), max_side=LONGEST)
        elif self._endpoint is None:
            assert job.base_url is not None
            self._endpoint = Endpoint(
                base_url=job.base_url, model=job.model, api_key_env=job.api_key_env, max_side=LONGEST
            )
        return self._endpoint

    def _request(self, question: Asked, pictures: dict[str, bytes]) -> Any:
        from mvl_assets.inference.request import ModelRef, Request

        messages = []
        for role, parts in question.messages:
            content: list[Mapping[str, str]] = []
            for part in parts:
                if isinstance(part, Film):
                    raise NotAnswerable(
                        "a server is shown pictures only, and this benchmark shows films",
                        hint="ask the checkpoint by the runner (via: runner)",
                    )
                if isinstance(part, str):
                    content.append({"type": "text", "text": part})
                else:
                    pictures[digest_hex(part)] = part
                    content.append({"type": "image", "image": digest_hex(part)})
            messages.append({"role": role, "content": content})
        return Request(
            messages=tuple(messages),
            model=ModelRef(self._job.model, self._job.version),
            sampling={"temperature": 0.0, "max_tokens": question.max_new_tokens},
            prompt=STAGE,
            prompt_hash="as-asked",
        )


def serve(answer: Callable[[Sequence[Asked]], list[str]], lines: Iterable[str], out: TextIO) -> None:
    """Answers line after line until the other side ends. Raises what answering raises."""
    for line in lines:
        questions = [Asked.of(data) for data in json.loads(line)["ask"]]
        texts = answer(questions)
        said = [{"text": t, "question_id": q.question_id} for t, q in zip(texts, questions, strict=True)]
        _write(out, {"answers": said})


def _write(out: TextIO, value: Mapping[str, Any]) -> None:
    out.write(json.dumps(value, ensure_ascii=True) + "\n")
    out.flush()


def main(arguments: Sequence[str]) -> int:
    # Libraries write to stdout when they like; the protocol gets a descriptor of its own.
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    try:
        job = AnswerJob.model_validate_json(arguments[0])
        side = ServerSide(job) if job.checkpoint is None else RunnerSide(job)
        _write(out, {"ready": True})
        serve(side.answer, sys.stdin, out)
    except MvlError as error:
        _write(out, {"error": error.message, "hint": error.hint})
        return 1
    except Exception as error:
        traceback.print_exc()
        _write(out, {"error": f"{type(error).__name__}: {error}", "hint": None})
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
