"""Requests to models, and the key that identifies equal requests.

The key of a request is the digest of canonical JSON of everything that decides its answer:

| in the key | why |
|---|---|
| messages | the question; an image enters as its image id, which is the digest of its bytes |
| model name and revision | another model, another answer |
| sampling | temperature, top_p, max_tokens, seed, stop... as given, nothing filled in |
| `max_image_side`, where there are images | the same image, smaller, shows less |
| thinking tokens and extra body of the model, where it has them | decide how it answers |
| output format | a constrained answer differs from a free one |
| prompt hash | the prompt file's version, also where an edit happens to leave the rendered text as it was |

Left out of the key:

| not in the key | why |
|---|---|
| prompt name | a file may be renamed; its hash identifies its content |
| endpoint, base_url, headers, API key | where a model is served does not decide the answer |
| served model name, server flags | names of the same weights |
| `supports_images` | only guards the building of a request; images are in the messages |
| number of log-probabilities | measures the same answer in more or less detail |
| preparing of images | a property of the pipeline's release, like the parser; it does not change the request |
| retries, time-outs, concurrency, stage, source, run | how an answer was obtained, not what it is |
| the earlier answer that a re-ask gives more room | the context of a server may leave less than was asked for |

The version of this scheme, `KEY_SCHEME` in `mvl_assets.common.digest`, is stored with every answer next to its key. A
change of the scheme must increment it: answers under another version are then of unknown identity, rather than silently
missing, which would send every request again.

The field names inside the digest keep their first spelling (`max_side`, `output`), whatever the attributes are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError

Message = Mapping[str, Any]


class RequestError(MvlError):
    """A request that must not be sent: built wrongly by the caller."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model that a request is addressed to.

    Attributes:
        revision: Identifies the weights.
        max_image_side: Longest side, in pixels, that its images are scaled to; None where the profile leaves it open.
        thinking_tokens: Room for its thoughts, on top of the limit of an answer.
        extra_body: Canonical JSON of the fields that every request to it has besides those of the prompt.
    """

    name: str
    revision: str
    supports_images: bool = True
    max_image_side: int | None = None
    thinking_tokens: int = 0
    extra_body: str = ""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The form of an answer.

    `text`: free. `json`: constrained to `schema`. `choice`: exactly one of `options`, with log-probabilities.
    """

    kind: Literal["text", "json", "choice"] = "text"
    schema: Mapping[str, Any] | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "json") != (self.schema is not None) or (self.kind == "choice") != bool(self.options):
            raise RequestError(f"output format {self.kind!r} with schema={self.schema} options={self.options}")

    @property
    def identity(self) -> dict[str, Any]:
        """What enters the key of a request."""
        return {"kind": self.kind, "schema": self.schema, "options": self.options}


TEXT_OUTPUT = OutputFormat()


def build_json_output(schema: Mapping[str, Any]) -> OutputFormat:
    """Return the format of answers that are JSON of this schema."""
    return OutputFormat("json", schema=schema)


def build_choice_output(*options: str) -> OutputFormat:
    """Return the format of answers that are exactly one of the options."""
    return OutputFormat("choice", options=options)


@dataclass(frozen=True, slots=True)
class TokenUse:
    """The tokens of an answer: those of its prompt, and those that were written, thoughts included."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one model.

    Attributes:
        messages: OpenAI chat messages; an image is the content part `{"type": "image", "image": "<image id>"}`, whose
            bytes are loaded when the request is sent, and the frames of a video are
            `{"type": "video", "frames": ["<image id>", ...]}`.
        sampling: OpenAI sampling fields; must bound the answer with `max_tokens`.
        prompt_hash: `Prompt.hash` of the prompt file.
        cut_answer: What the answer took that this request asks for with more room; None for any other request.
        key: 32 hex digits, see the module docstring.

    Raises:
        RequestError: The answer has no bound, or an image is addressed to a model that reads text only: the caller must
            decide explicitly what such a model is asked instead.
    """

    messages: tuple[Message, ...]
    model: ModelRef
    sampling: Mapping[str, Any]
    prompt_name: str
    prompt_hash: str
    output: OutputFormat = TEXT_OUTPUT
    cut_answer: TokenUse | None = field(default=None, compare=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.messages:
            raise RequestError("a request needs at least one message")
        max_tokens = self.sampling.get("max_tokens")
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise RequestError(
                f"prompt {self.prompt_name!r}: sampling needs max_tokens, an integer above 0, not {max_tokens!r}",
                hint="an answer without a bound can run forever; set max_tokens in the prompt's front matter",
            )
        if not self.model.supports_images and any(True for _ in iter_image_ids(self.messages)):
            raise RequestError(
                f"{self.model.name} reads text only, and a request of prompt {self.prompt_name!r} holds an image",
                hint="drop the images where the request is built, or give the role a model with supports_images: true",
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
        if self.model.thinking_tokens:
            identity["thinking_tokens"] = self.model.thinking_tokens
        if self.model.extra_body:
            identity["extra_body"] = self.model.extra_body
        object.__setattr__(self, "key", compute_digest(identity))

    @property
    def max_tokens(self) -> int:
        """The most that the model may write, thoughts included."""
        return int(self.sampling["max_tokens"]) + self.model.thinking_tokens

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Image ids in order of appearance, repetitions included."""
        return tuple(iter_image_ids(self.messages))

    @property
    def cache_names(self) -> dict[str, str]:
        """The name of each image in a server's cache, by image id; frames of videos are not cached.

        A server may prepare one of several images otherwise than one alone (`mvl_training.model.vllm_model`).
        """
        image_ids = [part["image"] for part in _iter_parts(self.messages) if part["type"] == "image"]
        suffix = "-of-several" if len(image_ids) > 1 else ""
        return {image_id: image_id + suffix for image_id in image_ids}


def iter_image_ids(messages: Sequence[Message]) -> Iterator[str]:
    """Yield image ids in order of appearance, repetitions included."""
    for part in _iter_parts(messages):
        if part["type"] == "image":
            yield part["image"]
        elif part["type"] == "video":
            yield from part["frames"]


def _iter_parts(messages: Sequence[Message]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        if not isinstance(message["content"], str):
            yield from message["content"]
