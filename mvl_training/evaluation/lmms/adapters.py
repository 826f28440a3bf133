"""Two models for lmms-eval: `mvl_runner` (an exported checkpoint, this project's code) and `mvl_served` (a server).

lmms-eval finds them by the entry point `lmms_eval.models`, so its own command line has them too:
`lmms-eval --model mvl_runner --model_args python=.venv/bin/python,checkpoint=DIR --tasks mmstar`.

What differs from the models lmms-eval brings: a conversation keeps its pictures where they stand; an error ends the run
instead of becoming an empty answer; every answer has an explicit bound; films go as films.
Interface: lmms_eval/api/model.py and docs/guides/model_guide.md of lmms-eval 0.7.3.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image

MODULE = "mvl_training.evaluation.answering"
MAX_NEW_TOKENS = 1024
"""Where a task says nothing: room for a reasoned answer (the paper's chain-of-thought tasks allow as much)."""

# One line of the pipe holds so many questions, and about so many bytes of pictures: a server answers them at a time.
QUESTIONS_PER_LINE = 64
BYTES_PER_LINE = 64 << 20


class AnswerError(RuntimeError):
    """A question got no answer. `hint` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(message if hint is None else f"{message} | {hint}")


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
        for line in _lines(self._question(request) for request in requests):
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
        if refused := _sampling(settings):
            raise AnswerError(f"{task} wants {refused}, and answers here are greedy, as in the paper")
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        return {
            "messages": [{"role": m["role"], "parts": [_part(p) for p in _listed(m["content"])]} for m in messages],
            "max_new_tokens": self._bound or int(settings.get("max_new_tokens") or MAX_NEW_TOKENS),
        }

    def _keep(self, answer: Mapping[str, str], request: Any) -> str:
        _, doc_to_messages, settings, doc_id, task, _ = request.args
        self.asked[task, doc_id] = answer["question_id"]
        return cut_at(answer["text"], stops(settings, getattr(doc_to_messages, "__self__", None)))

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
    """`base_url`: an OpenAI-compatible server; `model`: its name there; `version` names the weights behind it;
    `lake`: where the answers are kept."""

    def __init__(self, *, base_url: str, model: str, version: str, lake: str, **rest: Any) -> None:
        super().__init__(base_url=base_url, model=model, version=version, lake=lake, **rest)


def manifests() -> list[ModelManifest]:
    """What the entry point `lmms_eval.models` loads."""
    here = __name__
    return [
        ModelManifest(model_id="mvl_runner", chat_class_path=f"{here}.{MvlRunner.__name__}"),
        ModelManifest(model_id="mvl_served", chat_class_path=f"{here}.{MvlServed.__name__}"),
    ]


def stops(settings: Mapping[str, Any], task: Any) -> list[str]:
    """The texts at which the task wants the answer cut.

    lmms-eval gives a task that says nothing its few-shot delimiter (an empty line), at which a reasoned answer would end
    after its first paragraph: that one is not the task's word.
    """
    until = settings.get("until") or []
    said = [until] if isinstance(until, str) else list(until)
    injected = [task.config.fewshot_delimiter] if task is not None else []
    return [] if said == injected else [stop for stop in said if stop]


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`."""
    return text[: min([len(text), *(at for stop in stops if (at := text.find(stop)) >= 0)])]


def _sampling(settings: Mapping[str, Any]) -> str | None:
    """What a task asks beyond greedy decoding, in words. A temperature beside `do_sample: false` has no effect."""
    drawn = settings.get("do_sample", (settings.get("temperature") or 0) > 0)
    if drawn:
        return "sampled answers"
    beams = int(settings.get("num_beams") or 1)
    return f"{beams} beams" if beams > 1 else None


def _listed(content: Any) -> Sequence[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _part(part: Mapping[str, Any]) -> dict[str, str]:
    kind = part["type"]
    if kind == "text":
        return {"text": part["text"]}
    if kind == "image":
        return {"picture": _png(part["url"])}
    if (
        kind == "video"
        and isinstance(part["url"], str | Path)
        and not part.get("start_time")
        and not part.get("end_time")
    ):
        return {"film": str(Path(part["url"]).resolve())}
    raise AnswerError(f"a question holds a {kind} in a form that cannot be shown: {str(part)[:120]}")


def _png(picture: Any) -> str:
    """Base64 of the picture without loss; a file as it is."""
    if isinstance(picture, str | Path):
        return base64.b64encode(Path(picture).read_bytes()).decode("ascii")
    if not isinstance(picture, Image.Image):
        raise AnswerError(f"a picture is a {type(picture).__name__}")
    data = io.BytesIO()
    # CMYK and other modes have no PNG.
    (picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else picture.convert("RGB")).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def _lines(questions: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Questions in lines of bounded size, made as they are sent."""
    line: list[dict[str, Any]] = []
    size = 0
    for question in questions:
        weight = sum(len(part.get("picture", "")) for m in question["messages"] for part in m["parts"])
        if line and (len(line) == QUESTIONS_PER_LINE or size + weight > BYTES_PER_LINE):
            yield line
            line, size = [], 0
        line.append(question)
        size += weight
    if line:
        yield line


def _weights_digest(folder: Path) -> str:
    """Names weights by size and time of their files, for exports that were made without the lake."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise AnswerError(f"{folder} holds no weights", "name an export folder")
    return "-".join(f"{file.stat().st_size:x}.{file.stat().st_mtime_ns:x}" for file in files)
