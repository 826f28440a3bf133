"""What lmms-eval's process sends to the worker that answers: the job, and questions."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.natural_sort import natural_sort_key
from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.server_spec import ServerSpec

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


class AnswerJob(BaseModel):
    """The backend to ask, and where to keep its answers.

    With `checkpoint` the backend is `local`; without, it is `server`: those at `base_urls`, or one that is started.

    Attributes:
        version: Name of the weights; answers of other weights are not reused.
        checkpoint: Export folder to load (`local`).
        answers_path: JSON lines file that keeps the answers (`local`).
        n_processes: Processes that answer, each with a GPU of its own (`local`); None: one for every GPU.
        base_urls: Running OpenAI-compatible servers, which share the questions (`server`).
        model: The model's name there.
        api_key_env: Environment variable with the servers' key.
        server_spec: The server to start when there are no `base_urls`.
        max_frames: Most frames of a video that the server is sent (`server`); None: it does not lay videos out as the
            checkpoint was trained on them.
        n_frames: Frames of every video, evenly spread over all of its frames; None: as training takes them.
        lake_root: The lake that keeps the answers (`server`).
        run_id: Run that the stored answers name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    checkpoint: Path | None = None
    answers_path: Path | None = None
    n_processes: int | None = None
    base_urls: tuple[str, ...] = ()
    model: str = "default"
    api_key_env: str | None = None
    server_spec: ServerSpec | None = None
    max_frames: int | None = None
    n_frames: int | None = None
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
    files = list_frames(part.path) if part.path.is_dir() else [part.path]
    return {"film": [_digest_file(file) for file in files]}


def list_frames(folder: Path) -> list[Path]:
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
