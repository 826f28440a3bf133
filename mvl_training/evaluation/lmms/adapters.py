"""Two models for lmms-eval: `mvl_local` (an exported checkpoint, run by this project) and `mvl_server` (a server).

lmms-eval finds them by the entry point `lmms_eval.models`, so its own command line offers them, too:
`lmms-eval --model mvl_local --model_args python=.venv/bin/python,checkpoint=DIR --tasks mmstar`.

Unlike lmms-eval's own models, they keep images at their places in a conversation, end the run on an error
instead of scoring an empty answer, limit the length of every answer, and show videos as videos.
Interface: lmms_eval/api/model.py and docs/guides/model_guide.md of lmms-eval 0.7.3.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from mvl_training.evaluation.lmms.question import (
    LmmsError,
    build_benchmark_question,
    iter_question_batches,
    resolve_stop_sequences,
    summarize_question,
    truncate_at_stop,
)

N_PREVIEWED = 6
WORKER_MODULE = "mvl_training.evaluation.benchmarks.lmms_worker"


class WorkerError(LmmsError):
    """A question got no answer."""


class _WorkerModel(lmms):
    """A model whose answers come from a process of the project's environment."""

    is_simple = False

    def __init__(
        self, *, python: str, max_new_tokens: int | str | None = None, system_prompt: str | None = None, **job: Any
    ) -> None:
        """Start the worker.

        Args:
            python: Interpreter of the project's environment.
            max_new_tokens: Replaces the tasks' own limits unless None.
            system_prompt: Of every question; None: the checkpoint's own.
            **job: Fields of `lmms_worker.AnswerJob`.
        """
        super().__init__()
        # lmms-eval passes these to every model.
        for name in ("batch_size", "max_batch_size", "device"):
            job.pop(name, None)
        self._max_new_tokens = None if max_new_tokens is None else int(max_new_tokens)
        self._system_prompt = system_prompt
        self.question_ids: dict[tuple[str, int], str] = {}
        """Question id by (task, document id), by which the answers of two checkpoints are paired."""
        self.clusters: dict[tuple[str, int], str] = {}
        """What a question shows, by the same; empty for text alone."""
        self.previewed_questions: list[dict[str, Any]] = []
        """The first questions as they were asked, for the preview of the benchmark."""
        command = [python, "-m", WORKER_MODULE, json.dumps(job)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="ascii")
        self._receive()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        answers: list[str] = []
        for question_batch in iter_question_batches(self._build_question(request) for request in requests):
            self._send({"questions": question_batch})
            answers += [
                self._record_answer(answer, requests[len(answers) + i])
                for i, answer in enumerate(self._receive()["answers"])
            ]
            sys.stdout.write(f"answered {len(answers)} of {len(requests)}\n")
            sys.stdout.flush()
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("only tasks that let the model write an answer (generate_until) are supported")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")

    def close(self) -> None:
        """End the worker; its answers are kept."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _build_question(self, request: Any) -> dict[str, Any]:
        _, doc_to_messages, settings, doc_id, task, split = request.args
        question = build_benchmark_question(
            task,
            doc_to_messages(self.task_dict[task][split][doc_id]),
            settings,
            max_new_tokens=self._max_new_tokens,
            system_prompt=self._system_prompt,
        )
        if len(self.previewed_questions) < N_PREVIEWED:
            self.previewed_questions.append({"task": task, "doc_id": doc_id, **summarize_question(question)})
        return question

    def _record_answer(self, answer: Mapping[str, str], request: Any) -> str:
        _, doc_to_messages, settings, doc_id, task, _ = request.args
        self.question_ids[task, doc_id] = answer["question_id"]
        self.clusters[task, doc_id] = answer["cluster"]
        config = getattr(getattr(doc_to_messages, "__self__", None), "config", None)
        return truncate_at_stop(
            answer["text"], resolve_stop_sequences(settings, getattr(config, "fewshot_delimiter", None))
        )

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the worker process ended with code {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"], message["hint"])
        return message


class MvlLocal(_WorkerModel):
    """The backend `local`: an export, run by this project."""

    def __init__(
        self, *, checkpoint: str, version: str | None = None, answers_path: str | None = None, **kwargs: Any
    ) -> None:
        """Start the worker.

        Args:
            checkpoint: Export folder.
            version: Name of its weights; by default built from size and time of their files.
            answers_path: File for the answers; by default next to the export folder.
            **kwargs: See `_WorkerModel`.
        """
        folder = Path(checkpoint).resolve()
        super().__init__(
            checkpoint=str(folder),
            version=version or _digest_weights(folder),
            answers_path=answers_path or str(folder.parent / f"{folder.name}-answers.jsonl"),
            **kwargs,
        )


class MvlServer(_WorkerModel):
    """The backend `server`: an OpenAI-compatible server."""

    def __init__(self, *, version: str, lake_root: str, **kwargs: Any) -> None:
        """Start the worker.

        Args:
            version: Name of the weights that the server runs.
            lake_root: The lake that keeps the answers.
            **kwargs: `base_urls` of running servers and `model`, its name there, or `server_spec` of one to start.
        """
        super().__init__(version=version, lake_root=lake_root, **kwargs)


def build_manifests() -> list[ModelManifest]:
    """Return both models, for the entry point `lmms_eval.models`."""
    module_name = __name__
    return [
        ModelManifest(model_id="mvl_local", chat_class_path=f"{module_name}.{MvlLocal.__name__}"),
        ModelManifest(model_id="mvl_server", chat_class_path=f"{module_name}.{MvlServer.__name__}"),
    ]


def _digest_weights(folder: Path) -> str:
    """Name weights by size and time of their files, for exports made without the lake."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WorkerError(f"{folder} holds no weights", "name an export folder")
    return "-".join(f"{file.stat().st_size:x}.{file.stat().st_mtime_ns:x}" for file in files)
