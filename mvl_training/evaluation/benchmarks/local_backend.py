"""The backend `local`: the exported model, run by this project's code in one process per GPU."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.end_with_parent import end_with_parent
from mvl_assets.common.pick_evenly import pick_evenly, pick_exactly
from mvl_training.evaluation.answer_file import iter_answer_lines
from mvl_training.evaluation.benchmarks.protocol import AnswerJob, BenchmarkQuestion, VideoPath, list_frames

QUESTIONS_PER_TASK = 32
"""Questions that a process takes at a time; after them their answers are stored."""

_own = threading.local()
"""Of a thread that answers: `device`, the number of its GPU, and `runner`, the model that it has loaded."""


class LocalBackend:
    """Backend that runs the exported model and appends answers to a file as they come."""

    def __init__(self, job: AnswerJob) -> None:
        assert job.checkpoint is not None and job.answers_path is not None
        self._checkpoint, self._answers_path = job.checkpoint, job.answers_path
        self._n_processes, self._n_frames = job.n_processes, job.n_frames
        # Keys of answers from before there was `n_frames` stay as they are.
        self._key_start = [job.version] if job.n_frames is None else [job.version, job.n_frames]
        self._answers = _read_answers(self._answers_path)
        self._executor: Executor | None = None

    def answer(self, questions: Sequence[BenchmarkQuestion]) -> list[str]:
        """Return the answers in order; only questions without a stored answer are asked."""
        keys = [compute_digest(*self._key_start, question.question_id) for question in questions]
        pending = {key: q for key, q in zip(keys, questions, strict=True) if key not in self._answers}
        self._answers_path.parent.mkdir(parents=True, exist_ok=True)
        with self._answers_path.open("a", encoding="utf-8") as out:
            for key, text in self._iter_answers(pending):
                self._answers[key] = text
                # A line break first: the line before may have been torn by a kill.
                out.write("\n" + json.dumps({"key": key, "text": text}))
                out.flush()
        return [self._answers[key] for key in keys]

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def _iter_answers(self, pending: dict[str, BenchmarkQuestion]) -> Iterator[tuple[str, str]]:
        """Yield (key, answer) as processes finish; questions of about the same length are asked together."""
        if not pending:  # nothing is loaded
            return
        if self._executor is None:
            self._executor = _start_executor(self._n_processes)
        ordered = sorted(pending, key=lambda key: _estimate_size(pending[key]))
        chunks = [ordered[i : i + QUESTIONS_PER_TASK] for i in range(0, len(ordered), QUESTIONS_PER_TASK)]
        keys_by_future = {
            self._executor.submit(
                _answer_questions, self._checkpoint, [pending[key] for key in chunk], self._n_frames
            ): chunk
            for chunk in chunks
        }
        for future in as_completed(keys_by_future):
            yield from zip(keys_by_future[future], future.result(), strict=True)


def _read_answers(file: Path) -> dict[str, str]:
    """Return stored answers by key."""
    return {row["key"]: row["text"] for row in iter_answer_lines(file) if row.keys() >= {"key", "text"}}


def _estimate_size(question: BenchmarkQuestion) -> tuple[int, int, int]:
    """Return what questions are sorted by: tokens of the answer, images and videos, characters of the text."""
    parts = [part for _, message_parts in question.messages for part in message_parts]
    texts = [part for part in parts if isinstance(part, str)]
    return question.max_new_tokens, len(parts) - len(texts), sum(map(len, texts))


def _start_executor(n_processes: int | None) -> Executor:
    """Start a process per GPU, or a thread of this process where there is one at most."""
    import torch

    n_processes = n_processes or max(1, torch.cuda.device_count())
    if n_processes == 1:
        return ThreadPoolExecutor(1)
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    for device in range(n_processes):
        devices.put(device)
    return ProcessPoolExecutor(n_processes, context, initializer=_take_device, initargs=(devices,))


def _take_device(devices: Any) -> None:
    end_with_parent()
    _own.device = devices.get()


def _answer_questions(checkpoint: Path, questions: Sequence[BenchmarkQuestion], n_frames: int | None) -> list[str]:
    from mvl_training.evaluation.student_runner import Conversation, StudentRunner

    if not hasattr(_own, "runner"):
        _own.runner = StudentRunner(checkpoint, device=getattr(_own, "device", 0))
    max_frames = _own.runner.processor.frame_limits.max_frames
    conversations = [
        Conversation(
            [
                (
                    role,
                    [
                        load_frames(part, max_frames, n_frames) if isinstance(part, VideoPath) else part
                        for part in parts
                    ],
                )
                for role, parts in question.messages
            ],
            question.max_new_tokens,
        )
        for question in questions
    ]
    replies: list[str] = _own.runner.generate_replies(conversations)
    return replies


def load_frames(video: VideoPath, max_frames: int, n_frames: int | None = None) -> list[bytes]:
    """Return frames of a video as image files.

    Args:
        video: The video.
        max_frames: Most frames that a checkpoint's stage was trained on; they are chosen as training chooses them.
        n_frames: If not None, exactly as many are taken instead, evenly spread over all frames.
    """
    from mvl_assets.media.video import sample_frames, sample_n_frames

    if n_frames is not None:
        if not video.path.is_dir():
            return list(sample_n_frames(video.path, n_frames))
        frames = list_frames(video.path)
        return [frames[i].read_bytes() for i in pick_exactly(len(frames), n_frames)]
    if not video.path.is_dir():
        return [data for _, data in sample_frames(video.path, max_frames=max_frames)]
    frames = list_frames(video.path)
    return [frames[i].read_bytes() for i in pick_evenly(len(frames), max_frames, "down")]
