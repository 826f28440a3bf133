"""The chat-completions protocol: builds a body from a `Request` and a `Reply` from a body. No network, no waiting.

Field names are those of OpenAI's chat API and of vLLM's additions (`structured_outputs`, `uuid`, metrics). Images
arrive here as prepared bytes and become base64 only inside the body.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.common.markdown import encode_data_uri
from mvl_assets.inference.client.output_forms import add_constraint
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.request import Request

MIN_LOGPROB = -1000.0
# Stored where a server gave log-probabilities, and none of them is a number.
NO_LOGPROBS = "{}"
# Tokens by which a re-ask's prompt may be longer than the prompt before: its limits have other digits.
CONTEXT_MARGIN = 16
PROBE_MESSAGES, PROBE_MAX_TOKENS = [{"role": "user", "content": "."}], 1

_THINK_TAGS = ("<think>", "</think>")
_IMAGE_SIGNATURES = ((b"\xff\xd8", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"))


class MalformedReply(ValueError):
    """An HTTP 200 whose body is not a chat completion: HTML, broken JSON, or missing fields."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion.

    Attributes:
        text: The answer, without thoughts before it.
        first_token_logprobs: JSON {token: log-probability} of the first token, or None.
        reasoning: The thoughts before the answer, from a field of their own or a `<think>` block; None without any.
        output_form: The form in which the answer was constrained, see `output_forms`; None for plain text.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_logprobs: str | None
    reasoning: str | None = None
    output_form: str | None = None


def compute_max_tokens(request: Request, max_model_len: int | None) -> int:
    """Return the most that the model may write: what the request says, or what the context leaves where that is less.

    What it leaves is known of a request that follows a cut answer only, whose prompt was counted.
    """
    if request.cut_answer is None or max_model_len is None:
        return request.max_tokens
    return min(request.max_tokens, max_model_len - request.cut_answer.prompt_tokens - CONTEXT_MARGIN)


def build_request_body(
    request: Request, endpoint: Endpoint, images: Mapping[str, bytes], cached_names: Collection[str] | None = None
) -> bytes:
    """Return the JSON body of a request.

    Args:
        request: Its images are image ids.
        endpoint: Gives the name of the served model, its context, whether a seed may be sent, and the form of
            constraints.
        images: Prepared bytes by image id, for every image of the request.
        cached_names: Images that are sent by uuid only, by their names in the cache; the others get a uuid with their
            bytes. None: no uuids.
    """
    max_tokens = compute_max_tokens(request, endpoint.max_model_len)
    body: dict[str, Any] = {"model": endpoint.model, **request.sampling, "max_tokens": max_tokens}
    if request.model.extra_body:
        # A field without a value is left out: some servers refuse a temperature.
        body = {
            name: value for name, value in (body | json.loads(request.model.extra_body)).items() if value is not None
        }
    if body.get("temperature", 1) > 0 and not endpoint.supports_seed:
        body.pop("seed", None)
    names = None if cached_names is None else request.cache_names
    body["messages"] = [_build_message(message, images, names, cached_names or ()) for message in request.messages]
    add_constraint(body, request.output, endpoint.output_form, endpoint.gives_logprobs)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _build_message(
    message: Mapping[str, Any],
    images: Mapping[str, bytes],
    names: Mapping[str, str] | None,
    cached_names: Collection[str],
) -> Mapping[str, Any]:
    if isinstance(message["content"], str):
        return message
    return {**message, "content": [_build_part(part, images, names, cached_names) for part in message["content"]]}


def _build_part(
    part: Mapping[str, Any],
    images: Mapping[str, bytes],
    names: Mapping[str, str] | None,
    cached_names: Collection[str],
) -> Mapping[str, Any]:
    if part["type"] == "image":
        name = None if names is None else names[part["image"]]
        return _build_image_part(images[part["image"]], name, is_cached=name in cached_names)
    if part["type"] == "video":
        return _build_video_part([images[frame] for frame in part["frames"]])
    return part


def _build_image_part(data: bytes, name: str | None, *, is_cached: bool) -> dict[str, Any]:
    """Return an image, with the uuid under which a server caches it if it has a name."""
    url = {} if is_cached else {"url": _encode_image_url(data)}
    # The uuid must name the bytes that are sent, which depend on the size the image was scaled to.
    uuid = {} if name is None else {"uuid": f"{name}-{len(data)}"}
    return {"type": "image_url", "image_url": url, **uuid}


def _build_video_part(frames: Sequence[bytes]) -> dict[str, Any]:
    """Return frames as a video, in vLLM's form: a list of base64, under this type whatever the frames' format is."""
    encoded = ",".join(base64.b64encode(frame).decode("ascii") for frame in frames)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{encoded}"}}


def _encode_image_url(data: bytes) -> str:
    """Return an image as a data URL (RFC 2397)."""
    media_type = next((name for signature, name in _IMAGE_SIGNATURES if data.startswith(signature)), "image/png")
    return encode_data_uri(data, media_type)


def build_probe_body(endpoint: Endpoint) -> bytes:
    """Return the smallest possible request, which tests whether an endpoint answers."""
    return json.dumps({"model": endpoint.model, "messages": PROBE_MESSAGES, "max_tokens": PROBE_MAX_TOKENS}).encode(
        "ascii"
    )


def is_probe(body: Any) -> bool:
    """Return whether a decoded body is that of `build_probe_body`."""
    return (
        isinstance(body, dict) and body.get("max_tokens") == PROBE_MAX_TOKENS and body.get("messages") == PROBE_MESSAGES
    )


def parse_reply(body: bytes) -> Reply:
    """Return the completion in the body of an HTTP 200.

    Raises:
        MalformedReply: It holds none, or one that no table can store.
    """
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        message = choice["message"]
        # OpenRouter and newer versions of vLLM call the field `reasoning`.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        text = message["content"] if reasoning is None else message.get("content")
        if reasoning is None and isinstance(text, str):
            reasoning, text = split_reasoning(text)
        usage = document.get("usage") or {}
        reply = Reply(
            text="" if text is None else text,
            finish_reason=choice.get("finish_reason") or "unknown",
            prompt_tokens=_parse_token_count(usage.get("prompt_tokens")),
            completion_tokens=_parse_token_count(usage.get("completion_tokens")),
            first_token_logprobs=None if reasoning else _parse_first_token_logprobs(choice),
            reasoning=reasoning,
        )
        if not all(isinstance(part, str) for part in (reply.text, reply.finish_reason, reply.reasoning or "")):
            raise TypeError("message content is not a string")
        # A lone surrogate is valid in JSON and in a Python string, and no table can store it.
        (reply.text + reply.finish_reason + (reply.reasoning or "")).encode("utf-8")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        start = body[:80].decode("utf-8", "replace")
        raise MalformedReply(f"not a chat completion ({type(error).__name__}): {start!r}") from error
    return reply


def split_reasoning(text: str) -> tuple[str | None, str]:
    """Return the thoughts that a text begins with, and the remainder; None for a text without any.

    The opening tag may be missing: some chat templates write it into the prompt. Without the closing one everything is
    thought: the model was cut off before it answered.
    """
    opening, closing = _THINK_TAGS
    stripped = text.lstrip()
    begins_with_tag = stripped.startswith(opening)
    thoughts, closing_tag, remainder = stripped.partition(closing)
    if begins_with_tag:
        return thoughts.removeprefix(opening).strip(), remainder.lstrip()
    if closing_tag and opening not in thoughts:
        return thoughts.strip(), remainder.lstrip()
    return None, text


def _parse_first_token_logprobs(choice: Mapping[str, Any]) -> str | None:
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return None
    first = content[0]
    # The chosen token first: it may be outside the top few.
    logprob_by_token: dict[str, float] = {}
    for entry in (first, *(first.get("top_logprobs") or ())):
        logprob = entry["logprob"]
        # vLLM gives tokens that the constraint forbids -9999, others -Infinity or null; NaN says nothing.
        if logprob is not None and math.isfinite(logprob) and logprob > MIN_LOGPROB:
            logprob_by_token.setdefault(str(entry["token"]), logprob)
    # ASCII with escapes: a token may be a lone surrogate.
    return json.dumps(logprob_by_token)


def _parse_token_count(value: Any) -> int:
    """Return a token count that a table can hold; raise `ValueError` for any other value."""
    count = int(value or 0)
    if not 0 <= count < 1 << 31:
        raise ValueError(f"{count} tokens")
    return count


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What vLLM says of itself, over all its engines.

    Attributes:
        queue_length: Requests that wait inside the server.
        generated_tokens: Tokens it has written since it was started, those of unfinished answers included.
    """

    queue_length: int
    generated_tokens: int


def parse_server_load(metrics: bytes) -> ServerLoad | None:
    """Return the load from vLLM's Prometheus text; None for another server's."""
    queue_length = _sum_metric(metrics, b"num_requests_waiting")
    if queue_length is None:
        return None
    return ServerLoad(queue_length, _sum_metric(metrics, b"generation_tokens_total") or 0)


def _sum_metric(metrics: bytes, name: bytes) -> int | None:
    engine_values = re.findall(rb"^vllm:" + name + rb"(?:\{[^\n]*\})? ([0-9.e+]+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for value in engine_values)) if engine_values else None


def parse_model_names(body: bytes) -> list[str]:
    """Return the names in a list of models.

    Raises:
        MalformedReply: It is none.
    """
    try:
        return [str(entry["id"]) for entry in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedReply("not a list of models") from error


def parse_max_model_len(body: bytes, model: str) -> int | None:
    """Return the context of a model from a list of models, which vLLM and SGLang say; None where it is not there."""
    try:
        lengths = [entry.get("max_model_len") for entry in json.loads(body)["data"] if entry.get("id") == model]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def parse_error_message(body: bytes) -> str:
    """Return the server's own message from an error body, at most 300 characters."""
    try:
        document = json.loads(body)
        error = document.get("error", document)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError, RecursionError):
        text = body[:300].decode("utf-8", "replace")
    return " ".join(text.split())[:300]
