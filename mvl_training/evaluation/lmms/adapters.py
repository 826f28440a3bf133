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

from mvl_training.evaluation.lmms.errors import Fault
from mvl_training.evaluation.lmms.question import cut_at, lines, question, stops

MODULE = "mvl_training.evaluation.benchmarks.lmms_worker"


class AnswerError(Fault):
    """A question got no answer."""


class _Piped(lmms):
    """A model whose answers come from a process of the project's environment."""

    is_simple = False

    def __init__(self, *, python: str, max_new_tokens: int | str | None = None, **job: Any) -> None:
        """`python` is the interpreter of the project's environment, `job` an `answering.AnswerJob`.

        `max_new_tokens`, when given, stands in place of what the tasks say.
        """
        super().__init__()
        # lmms-eval hands these to every model.
        for name in ("batch_size", "max_batch_size", "device"):
            job.pop(name, None)
        self._bound = None if max_new_tokens is None else int(max_new_tokens)
        self.asked: dict[tuple[str, int], str] = {}
        """The question's id by (task, document), for pairing the answers of two checkpoints."""
        command = [python, "-m", MODULE, json.dumps(job)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="ascii")
        self._read()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        answers: list[str] = []
        for line in lines(self._question(request) for request in requests):
            self._write({"ask": line})
            answers += [self._keep(one, requests[len(answers) + i]) for i, one in enumerate(self._read()["answers"])]
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

    def _question(self, request: Any) -> dict[str, Any]:
        _, doc_to_messages, settings, doc_id, task, split = request.args
        return question(task, doc_to_messages(self.task_dict[task][split][doc_id]), settings, bound=self._bound)

    def _keep(self, answer: Mapping[str, str], request: Any) -> str:
        _, doc_to_messages, settings, doc_id, task, _ = request.args
        self.asked[task, doc_id] = answer["question_id"]
        config = getattr(getattr(doc_to_messages, "__self__", None), "config", None)
        return cut_at(answer["text"], stops(settings, getattr(config, "fewshot_delimiter", None)))

    def _write(self, value: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AnswerError(f"the process that answers ended with code {self._process.wait()}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise AnswerError(said["error"], said["hint"])
        return said


class MvlRunner(_Piped):
    """`checkpoint`: an export folder. `version` names its weights, `known` the file that keeps what it said."""

    def __init__(self, *, checkpoint: str, version: str | None = None, known: str | None = None, **rest: Any) -> None:
        folder = Path(checkpoint).resolve()
        kept = known or str(folder.parent / f"{folder.name}-answers.jsonl")
        super().__init__(checkpoint=str(folder), version=version or _weights_digest(folder), known=kept, **rest)


class MvlServed(_Piped):
    """`base_url`: an OpenAI-compatible server, `model`: its name there; or `serve`: the server to start. `version`
    names the weights behind it, `lake`: where the answers are kept."""

    def __init__(self, *, version: str, lake: str, **rest: Any) -> None:
        super().__init__(version=version, lake=lake, **rest)


def manifests() -> list[ModelManifest]:
    """What the entry point `lmms_eval.models` loads."""
    here = __name__
    return [
        ModelManifest(model_id="mvl_runner", chat_class_path=f"{here}.{MvlRunner.__name__}"),
        ModelManifest(model_id="mvl_served", chat_class_path=f"{here}.{MvlServed.__name__}"),
    ]


def _weights_digest(folder: Path) -> str:
    """Names weights by size and time of their files, for exports that were made without the lake."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise AnswerError(f"{folder} holds no weights", "name an export folder")
    return "-".join(f"{file.stat().st_size:x}.{file.stat().st_mtime_ns:x}" for file in files)
