"""Two models for lmms-eval: `mvl_runner` (an exported checkpoint, this project's code) and `mvl_served` (a server).

lmms-eval finds them by the entry point `lmms_eval.models`, so its own command line has them too:
`lmms-eval --model mvl_runner --model_args python=.venv/bin/python,checkpoint=DIR --tasks mmstar`.

What differs from the models lmms-eval brings: a conversation keeps its pictures where they stand; an error ends the run
instead of becoming an empty answer; every answer has an explicit bound; films go as films.
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

from mvl_training.evaluation.lmms.errors import LmmsError
from mvl_training.evaluation.lmms.question import (
    build_question,
    iter_question_batches,
    resolve_stop_sequences,
    truncate_at_stop,
)

WORKER_MODULE = "mvl_training.evaluation.benchmarks.lmms_worker"


class WorkerError(LmmsError):
    """A question got no answer."""


class _WorkerModel(lmms):
    """A model whose answers come from a process of the project's environment."""

    is_simple = False

    def __init__(self, *, python: str, max_new_tokens: int | str | None = None, **job: Any) -> None:
        """`python` is the interpreter of the project's environment, `job` an `lmms_worker.AnswerJob`.

        `max_new_tokens`, when given, stands in place of what the tasks say.
        """
        super().__init__()
        # lmms-eval hands these to every model.
        for name in ("batch_size", "max_batch_size", "device"):
            job.pop(name, None)
        self._max_new_tokens = None if max_new_tokens is None else int(max_new_tokens)
        self.question_ids: dict[tuple[str, int], str] = {}
        """The question's id by (task, document), for pairing the answers of two checkpoints."""
        command = [python, "-m", WORKER_MODULE, json.dumps(job)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="ascii")
        self._receive()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        answers: list[str] = []
        for question_batch in iter_question_batches(self._build_question(request) for request in requests):
            self._send({"ask": question_batch})
            answers += [
                self._record_answer(answer, requests[len(answers) + i])
                for i, answer in enumerate(self._receive()["answers"])
            ]
            sys.stdout.write(f"answered {len(answers)} of {len(requests)}\n")
            sys.stdout.flush()
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("only tasks that let the model write (generate_until) can be asked")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("tasks of several rounds cannot be asked")

    def close(self) -> None:
        """Ends the other process; what it answered is kept."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _build_question(self, request: Any) -> dict[str, Any]:
        _, doc_to_messages, settings, doc_id, task, split = request.args
        return build_question(
            task, doc_to_messages(self.task_dict[task][split][doc_id]), settings, max_new_tokens=self._max_new_tokens
        )

    def _record_answer(self, answer: Mapping[str, str], request: Any) -> str:
        _, doc_to_messages, settings, doc_id, task, _ = request.args
        self.question_ids[task, doc_id] = answer["question_id"]
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
            raise WorkerError(f"the process that answers ended with code {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"], message["hint"])
        return message


class MvlRunner(_WorkerModel):
    """`checkpoint`: an export folder. `version` names its weights, `known` the file that keeps what it said."""

    def __init__(self, *, checkpoint: str, version: str | None = None, known: str | None = None, **kwargs: Any) -> None:
        folder = Path(checkpoint).resolve()
        answers_path = known or str(folder.parent / f"{folder.name}-answers.jsonl")
        super().__init__(
            checkpoint=str(folder), version=version or _digest_weights(folder), known=answers_path, **kwargs
        )


class MvlServer(_WorkerModel):
    """`base_url`: an OpenAI-compatible server, `model`: its name there; or `serve`: the server to start. `version`
    names the weights behind it, `lake`: where the answers are kept."""

    def __init__(self, *, version: str, lake: str, **kwargs: Any) -> None:
        super().__init__(version=version, lake=lake, **kwargs)


def build_manifests() -> list[ModelManifest]:
    """What the entry point `lmms_eval.models` loads."""
    module_name = __name__
    return [
        ModelManifest(model_id="mvl_runner", chat_class_path=f"{module_name}.{MvlRunner.__name__}"),
        ModelManifest(model_id="mvl_served", chat_class_path=f"{module_name}.{MvlServer.__name__}"),
    ]


def _digest_weights(folder: Path) -> str:
    """Names weights by size and time of their files, for exports that were made without the lake."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WorkerError(f"{folder} holds no weights", "name an export folder")
    return "-".join(f"{file.stat().st_size:x}.{file.stat().st_mtime_ns:x}" for file in files)
