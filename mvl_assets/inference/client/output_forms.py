"""The forms in which a server takes a constraint of its answers, and the probe that tells which one it knows.

| form | JSON of a schema | one of several options |
|---|---|---|
| `vllm` | `response_format` | `structured_outputs` |
| `openai` | `response_format` | not constrained |
| `none` | tagged blocks, as the message asks | not constrained |

A server may ignore what it does not know, so the probe asks for something else than the constraint allows. Of one of
several options the log-probabilities are asked for, too: of vLLM always, of another server if it has given some for a
probe of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mvl_assets.inference.request import OutputFormat
from mvl_assets.inference.tagged_blocks import describe_blocks

AUTO, VLLM, OPENAI, NONE = "auto", "vllm", "openai", "none"
# The most that vLLM and OpenAI give by default: with a weak judge, Yes and No may both be far down the list.
TOP_LOGPROBS = 20

_PROBE_WORD = "constrained"
_PROBE_MESSAGES = [{"role": "user", "content": "Say hello."}]
# A model that thinks does so before it is constrained.
_PROBE_MAX_TOKENS = 2048
_PROBE_SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": [_PROBE_WORD]}},
    "required": ["word"],
    "additionalProperties": False,
}
# What servers call the fields of a constraint in their errors.
_FORM_FIELDS = re.compile(
    r"response_format|json_schema|structured_?outputs?|guided|grammar|xgrammar|logprobs|schema", re.IGNORECASE
)


def add_constraint(body: dict[str, Any], output: OutputFormat, form: str, gives_logprobs: bool | None = None) -> None:
    """Add the constraint of an output format to a request's body, whose messages are built.

    Args:
        body: The body.
        output: The output format.
        form: The form of the server's constraints.
        gives_logprobs: Whether the server gives log-probabilities; None where that was not found out.
    """
    if output.kind == "json":
        assert output.schema is not None
        if form == NONE:
            body["messages"] = _append_text(body["messages"], describe_blocks(output.schema))
        else:
            body["response_format"] = _build_response_format(output.schema)
    elif output.kind == "choice":
        if form == VLLM:
            body["structured_outputs"] = {"choice": list(output.options)}
        if form == VLLM if gives_logprobs is None else gives_logprobs:
            _add_logprobs(body)


def _add_logprobs(body: dict[str, Any]) -> None:
    body["logprobs"] = True
    body["top_logprobs"] = TOP_LOGPROBS


def _build_response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _append_text(messages: list[Any], text: str) -> list[Any]:
    *earlier, last = messages
    content = last["content"]
    content = f"{content}\n\n{text}" if isinstance(content, str) else [*content, {"type": "text", "text": text}]
    return [*earlier, {**last, "content": content}]


def build_form_probe(model: str, form: str) -> bytes:
    """Return the body of the request that tests whether a server knows `vllm` or `openai`."""
    body: dict[str, Any] = {"model": model, "messages": _PROBE_MESSAGES, "max_tokens": _PROBE_MAX_TOKENS}
    if form == VLLM:
        body["structured_outputs"] = {"choice": [_PROBE_WORD]}
    else:
        body["response_format"] = _build_response_format(_PROBE_SCHEMA)
    return json.dumps(body).encode("ascii")


def build_logprobs_probe(model: str) -> bytes:
    """Return the body of the request that tests whether a server gives log-probabilities."""
    body: dict[str, Any] = {"model": model, "messages": _PROBE_MESSAGES, "max_tokens": _PROBE_MAX_TOKENS}
    _add_logprobs(body)
    return json.dumps(body).encode("ascii")


def is_form_probe(body: Any) -> bool:
    """Return whether a decoded body is that of one of the probes."""
    return isinstance(body, dict) and body.get("messages") == _PROBE_MESSAGES


def has_form(text: str, form: str) -> bool:
    """Return whether the answer to the probe of a form was constrained."""
    if form == VLLM:
        return text.strip() == _PROBE_WORD
    try:
        return bool(json.loads(text) == {"word": _PROBE_WORD})
    except (ValueError, RecursionError):
        return False


def is_form_error(message: str) -> bool:
    """Return whether an error of a server speaks of the constraint: it may refuse the form, or this one request."""
    return _FORM_FIELDS.search(message) is not None
