"""What a request is, and when two requests are the same request.

The key of a request is the digest of canonical JSON of everything that decides its answer:

| in the key | why |
|---|---|
| messages | the question; a picture counts by its image id, which is the digest of its bytes |
| model name and revision | another model, another answer |
| sampling | temperature, top_p, max_tokens, seed, stop... as given, nothing filled in |
| `max_image_side`, where there are pictures | the same picture, smaller, shows less |
| output form | a constrained answer differs from a free one |
| prompt hash | the prompt file's version, also where an edit happens to leave the rendered text as it was |

Left out of the key:

| not in the key | why |
|---|---|
| prompt name | a file may be renamed; its hash says what it holds |
| endpoint, base_url, headers, API key | where a model is served decides no answer |
| served model name, server flags | names of the same weights |
| `supports_images` | only guards the building of a request; pictures are in the messages |
| number of log-probabilities asked for | measures the same answer in more or less detail |
| picture standardising | a property of the pipeline's release, like the parser; it moves no request |
| retries, time-outs, concurrency, stage, source, run | how an answer was come by, not what it is |

Belongs here: the value types and their identity. How a request looks on the wire is `chat_protocol.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError

Message = Mapping[str, Any]


class RequestError(MvlError):
    """A request that no model may be sent: built wrongly by the caller."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model an answer is wanted from. `revision` names the weights. `max_image_side` is the longest side in pixels that
    its pictures are brought to; None where that is not a person's choice."""

    name: str
    revision: str
    supports_images: bool = True
    max_image_side: int | None = None


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """`text`: free. `json`: constrained to `schema`. `choice`: exactly one of `options`, with log-probabilities."""

    kind: Literal["text", "json", "choice"] = "text"
    schema: Mapping[str, Any] | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "json") != (self.schema is not None) or (self.kind == "choice") != bool(self.options):
            raise RequestError(f"output form {self.kind!r} with schema={self.schema} options={self.options}")

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "schema": self.schema, "options": self.options}


TEXT_OUTPUT = OutputFormat()


def build_json_output(schema: Mapping[str, Any]) -> OutputFormat:
    return OutputFormat("json", schema=schema)


def build_choice_output(*options: str) -> OutputFormat:
    return OutputFormat("choice", options=options)


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one model.

    `messages` are OpenAI chat messages; a picture is the content part `{"type": "image", "image": "<image id>"}`, whose
    bytes are loaded when the request is sent. `sampling` holds OpenAI sampling fields and must bound the answer with
    `max_tokens`. Raises `RequestError` when a picture is addressed to a model that sees none: the caller decides
    openly what a text-only model is asked instead.
    """

    messages: tuple[Message, ...]
    model: ModelRef
    sampling: Mapping[str, Any]
    prompt_name: str
    prompt_hash: str
    output: OutputFormat = TEXT_OUTPUT
    key: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.messages:
            raise RequestError("a request needs at least one message")
        max_tokens = self.sampling.get("max_tokens")
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise RequestError(
                f"prompt {self.prompt_name!r}: sampling needs max_tokens, a whole number above 0, not {max_tokens!r}",
                hint="an answer without a bound can run for ever; set max_tokens in the prompt's front matter",
            )
        if not self.model.supports_images and any(True for _ in iter_image_ids(self.messages)):
            raise RequestError(
                f"{self.model.name} reads text only, and a request of prompt {self.prompt_name!r} holds a picture",
                hint="drop the pictures where the request is built, or give the role a model with supports_images: true",
            )
        identity: dict[str, Any] = {
            "messages": self.messages,
            "model": self.model.name,
            "revision": self.model.revision,
            "sampling": self.sampling,
            "output": self.output.identity,
            "prompt_hash": self.prompt_hash,
        }
        if self.model.max_image_side is not None and self.image_ids:
            identity["max_side"] = self.model.max_image_side
        object.__setattr__(self, "key", compute_digest(identity))

    @property
    def max_tokens(self) -> int:
        return int(self.sampling["max_tokens"])

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Image ids in order of appearance, repetitions included."""
        return tuple(iter_image_ids(self.messages))


def iter_image_ids(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            for part in content:
                if part["type"] == "image":
                    yield part["image"]
