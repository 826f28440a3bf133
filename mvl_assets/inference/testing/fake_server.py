"""A fake model server with faults on request, for tests, benchmarks, and trying things without a model.

`python -m mvl_assets.inference.testing.fake_server --port 8000 --latency-ms 50 --fault 429=0.05` serves the
chat-completions part of the OpenAI API as vLLM does, answers deterministically from the request, and counts requests.
`GET /counts` returns the counts. The engine's probes are counted apart, as `n_probes`.

Faults are drawn from the digest of the body and the number of times that body was seen, so a run can be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import hashlib
import json
import math
import os
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from mvl_assets.inference.client.chat_protocol import is_probe
from mvl_assets.inference.client.output_forms import NONE, VLLM, is_form_probe

FAULT_KINDS = (
    "429",  # with Retry-After, see `retry_after_s`
    "429_bare",  # without
    "429_date",  # with Retry-After as a date: two seconds from now
    "400",
    "500",
    "502",
    "503",
    "reset",  # in the middle of the body
    "hang",
    "drip",  # an answer that comes a byte at a time and never ends
    "html",
    "malformed",  # broken JSON
    "schema",  # JSON of another schema than was asked for
    "white_space",  # nothing else, up to the token limit
    "length",  # finish_reason: length
    "lone_surrogate",  # which UTF-8 cannot encode
    "nan",  # log-probabilities that are not numbers
)
DRIP_INTERVAL_S = 0.02
_TEXT_BY_FAULT = {"lone_surrogate": "\ud83d", "schema": '{"nothing": ["of", "the kind"]}', "white_space": " \n\t" * 200}


@dataclass(slots=True)
class FakeServerConfig:
    """Behaviour of a fake server.

    Attributes:
        latency_s: Time that each request takes.
        slots: Requests that are worked on at a time; more wait. None: all at once.
        max_queued: Requests that may wait; beyond them the answer is 503, as vLLM's with `--max-num-queued-reqs`.
        hold_after: Answers that are given; every other request waits until `POST /release`.
        served_model: Requests for any other model are answered with 404, as vLLM does. None: every model is served.
        max_model_len: Tokens of a prompt and its answer together, named beside the model as vLLM does; requests that
            may need more are refused. None: no limit.
        image_cache_size: Images that are remembered by their `uuid`.
        output_form: The form in which it takes constraints (`client.output_forms`); it refuses the others.
        ignores_forms: Whether it ignores the constraint of the probe instead, as some servers do.
        logprobs: Whether it gives log-probabilities, ignores that they are asked for, or refuses the request.
        text_chars: How long the strings of JSON answers become where the schema allows it; constrained decoding cuts
            longer ones. None: as short as it allows.
        fault_rates: Share of attempts that suffer a fault, by fault.
        fault_by_marker: A text, and the fault that every attempt of a request holding it suffers.
        reasoning: The thoughts of the model before each answer: in a field of their own, or as a `<think>` block.
        reasoning_field: The field, or None for a block.
        text_by_marker: A text, and the answer to every request that holds it.
        text_by_pattern: The same with regular expressions; the first one that is in the body decides.
        n_fault_attempts: Only this number of first attempts of a body can suffer a fault.
        poison: A body that holds this text kills the process.
        journal_file: Gets one line per request received, its digest; survives the death of the server.
    """

    latency_s: float = 0.0
    slots: int | None = None
    max_queued: int | None = None
    hold_after: int | None = None
    served_model: str | None = None
    max_model_len: int | None = None
    image_cache_size: int = 0
    output_form: str = VLLM
    ignores_forms: bool = False
    logprobs: Literal["given", "ignored", "refused"] = "given"
    text_chars: int | None = None
    fault_rates: Mapping[str, float] = field(default_factory=dict)
    fault_by_marker: Mapping[str, str] = field(default_factory=dict)
    reasoning: str | None = None
    reasoning_field: str | None = "reasoning_content"
    text_by_marker: Mapping[str, str] = field(default_factory=dict)
    text_by_pattern: Mapping[str, str] = field(default_factory=dict)
    n_fault_attempts: int | None = None
    poison: str | None = None
    retry_after_s: float = 0.1
    seed: int = 0
    journal_file: Path | None = None


class FakeServer:
    """The server and its record of requests. With `is_down` everything answers 503, /health too."""

    def __init__(self, config: FakeServerConfig | None = None) -> None:
        self.config = config or FakeServerConfig()
        self.request_counts: Counter[str] = Counter()
        self.answer_counts: Counter[str] = Counter()
        self.fault_counts: Counter[str] = Counter()
        self.n_probes = self.n_form_probes = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.is_down = False
        self.bodies: list[dict[str, Any]] = []
        self.record_bodies = False
        self.queue_length = 0
        self.cached_images: OrderedDict[str, None] = OrderedDict()
        # Created by the first request: a semaphore belongs to the event loop that serves.
        self._slots: asyncio.Semaphore | None = None

    def build_app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._handle_chat)
        app.router.add_get("/v1/models", self._handle_models)
        app.router.add_get("/health", self._handle_health)
        app.router.add_get("/counts", self._handle_counts)
        app.router.add_post("/release", self._handle_release)
        app.router.add_get("/metrics", self._handle_metrics)
        return app

    async def _handle_health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.is_down else 200)

    async def _handle_metrics(self, request: web.Request) -> web.Response:
        """Report requests as vLLM does; a server without slots has no queue and reports none."""
        text = f'vllm:num_requests_running{{engine="0"}} {self.in_flight - self.queue_length:.1f}\n'
        text += f'vllm:request_success_total{{engine="0",finished_reason="stop"}} {self.answer_counts.total():.1f}\n'
        if self.config.slots is not None:
            text += f'vllm:num_requests_waiting{{engine="0"}} {self.queue_length:.1f}\n'
        return web.Response(text=text, content_type="text/plain")

    async def _handle_models(self, request: web.Request) -> web.Response:
        name = self.config.served_model or "fake"
        model = {"id": name, "object": "model", "max_model_len": self.config.max_model_len}
        return web.json_response({"object": "list", "data": [model]})

    async def _handle_counts(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": sum(self.request_counts.values()),
                "distinct": len(self.request_counts),
                "answered": sum(self.answer_counts.values()),
                "answered_twice": sum(1 for n in self.answer_counts.values() if n > 1),
                "probes": self.n_probes,
                "faults": dict(self.fault_counts),
                "max_in_flight": self.max_in_flight,
            }
        )

    async def _handle_release(self, request: web.Request) -> web.Response:
        self.config.hold_after = None
        return web.Response()

    async def _handle_chat(self, request: web.Request) -> web.StreamResponse:
        raw_body = await request.read()
        if self.is_down:
            return web.Response(status=503)
        body = json.loads(raw_body)
        if self.config.served_model not in (None, body.get("model")):
            message = f"The model `{body.get('model')}` does not exist."
            return web.json_response({"error": {"message": message}}, status=404)
        if is_probe(body):
            self.n_probes += 1
            return web.json_response(_build_completion(body, "ok", "length"))
        if self.config.logprobs == "ignored":
            body.pop("logprobs", None)
        if refusal := _find_refused_field(body, self.config):
            self.fault_counts["form_refused"] += 1
            return web.json_response({"error": {"message": f"Unknown parameter: '{refusal}'."}}, status=400)
        if is_form_probe(body):
            self.n_form_probes += 1
            text = "hello" if self.config.ignores_forms else _build_text(body, "0", None)
            return web.json_response(_build_completion(body, text, "stop"))
        if self.config.max_model_len is not None:
            n_tokens = _count_prompt_tokens(body) + body["max_tokens"]
            if n_tokens > self.config.max_model_len:
                self.fault_counts["too_long"] += 1
                message = f"This model's maximum context length is {self.config.max_model_len} tokens, not {n_tokens}."
                return web.json_response({"error": {"message": message}}, status=400)
        digest = hashlib.blake2b(raw_body, digest_size=16).hexdigest()
        self.request_counts[digest] += 1
        if self.record_bodies:
            self.bodies.append(body)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._serve_chat(request, raw_body, body, digest)
        finally:
            self.in_flight -= 1

    async def _serve_chat(
        self, request: web.Request, raw_body: bytes, body: dict[str, Any], digest: str
    ) -> web.StreamResponse:
        config = self.config
        if config.journal_file is not None:
            with config.journal_file.open("a", encoding="ascii") as journal:
                journal.write(f"{digest}\n")
        if config.poison and config.poison.encode() in raw_body:
            os._exit(9)
        if config.slots is not None and config.max_queued is not None and self.queue_length >= config.max_queued:
            self.fault_counts["queue_full"] += 1
            return web.json_response({"error": {"message": "the queue is full"}}, status=503)
        if (missing_index := self._update_image_cache(body)) is not None:
            self.fault_counts["image_cache_miss"] += 1
            message = f"Cache miss for image at index {missing_index} but data is not provided."
            return web.json_response({"error": {"message": message}}, status=400)
        await self._simulate_work()
        while config.hold_after is not None and sum(self.answer_counts.values()) >= config.hold_after:
            await asyncio.sleep(0.02)
        fault = self._draw_fault(raw_body, digest)
        if fault is not None:
            self.fault_counts[fault] += 1
            response = await self._apply_fault(request, fault, body)
            if response is not None:
                return response
        self.answer_counts[digest] += 1
        texts = {re.escape(marker): text for marker, text in config.text_by_marker.items()} | dict(
            config.text_by_pattern
        )
        marked_text = next((text for pattern, text in texts.items() if re.search(pattern.encode(), raw_body)), None)
        text = _TEXT_BY_FAULT.get(fault or "") or marked_text or _build_text(body, digest, config.text_chars)
        finish_reason = "length" if fault in ("length", "white_space") else "stop"
        completion = _build_completion(body, text, finish_reason, math.nan if fault == "nan" else -0.2)
        if config.reasoning is not None:
            message = completion["choices"][0]["message"]
            if config.reasoning_field is None:
                message["content"] = f"<think>{config.reasoning}</think>\n\n{text}"
            else:
                message[config.reasoning_field] = config.reasoning
        return web.json_response(completion)

    def build_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request without any fault."""
        digest = hashlib.blake2b(json.dumps(body).encode(), digest_size=16).hexdigest()
        return _build_completion(body, _build_text(body, digest, self.config.text_chars), "stop")

    def _update_image_cache(self, body: dict[str, Any]) -> int | None:
        """Remember images by uuid; return the index of one that came without bytes and is not cached."""
        parts = [p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"]]
        for index, part in enumerate(part for part in parts if part["type"] == "image_url"):
            image_uuid = part.get("uuid")
            if "url" not in (part["image_url"] or {}) and image_uuid not in self.cached_images:
                return index
            if image_uuid is not None:
                self.cached_images[image_uuid] = None
                self.cached_images.move_to_end(image_uuid)
        while len(self.cached_images) > self.config.image_cache_size:
            self.cached_images.popitem(last=False)
        return None

    async def _simulate_work(self) -> None:
        latency_s = self.config.latency_s
        if self.config.slots is None:
            if latency_s:
                await asyncio.sleep(latency_s)
            return
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.config.slots)
        self.queue_length += 1
        try:
            await self._slots.acquire()
        finally:
            self.queue_length -= 1
        try:
            await asyncio.sleep(latency_s)
        finally:
            self._slots.release()

    def _draw_fault(self, raw_body: bytes, digest: str) -> str | None:
        config = self.config
        attempt = self.request_counts[digest]
        if config.n_fault_attempts is not None and attempt > config.n_fault_attempts:
            return None
        for marker, fault in config.fault_by_marker.items():
            if marker.encode() in raw_body:
                return fault
        draw = hashlib.blake2b(f"{config.seed}:{digest}:{attempt}".encode(), digest_size=8).digest()
        point = int.from_bytes(draw, "big") / 2**64
        for fault, rate in config.fault_rates.items():
            if point < rate:
                return fault
            point -= rate
        return None

    async def _apply_fault(self, request: web.Request, fault: str, body: Any) -> web.StreamResponse | None:
        if fault in ("429", "429_bare", "429_date"):
            retry_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
            retry_after = {
                "429": str(self.config.retry_after_s),
                "429_date": format_datetime(retry_at, usegmt=True),
            }.get(fault)
            headers = {} if retry_after is None else {"Retry-After": retry_after}
            return web.json_response({"error": {"message": "too many requests"}}, status=429, headers=headers)
        if fault in ("400", "500", "502", "503"):
            return web.json_response({"error": {"message": f"fault {fault}"}}, status=int(fault))
        if fault == "html":
            return web.Response(text="<html><body>Service unavailable</body></html>", content_type="text/html")
        if fault == "malformed":
            return web.Response(text='{"choices": [{"message": {"content": "cut', content_type="application/json")
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "drip":
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(DRIP_INTERVAL_S)
        if fault == "reset":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"choices": [')
            assert request.transport is not None
            request.transport.abort()
            return response
        return None


def _find_refused_field(body: Mapping[str, Any], config: FakeServerConfig) -> str | None:
    """Return the field of a constraint that a server of this form does not know."""
    form = config.output_form
    if config.logprobs == "refused" and "logprobs" in body:
        return "logprobs"
    if form != VLLM and "structured_outputs" in body:
        return "structured_outputs"
    return "response_format" if form == NONE and "response_format" in body else None


def _build_text(body: dict[str, Any], digest: str, text_chars: int | None) -> str:
    """Return a deterministic answer in the output format that was asked for."""
    choices = (body.get("structured_outputs") or {}).get("choice")
    if choices:
        return str(choices[int(digest, 16) % len(choices)])
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    if schema is not None:
        return json.dumps(_build_example(schema, digest, text_chars))
    return f"answer {digest}"


def _build_example(schema: Mapping[str, Any], digest: str, text_chars: int | None) -> Any:
    """Return the smallest value that fits the parts of JSON schema that prompts use."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][int(digest, 16) % len(schema["enum"])]
    kind = schema.get("type")
    if kind == "object":
        return {
            name: _build_example(property_schema, digest, text_chars)
            for name, property_schema in schema.get("properties", {}).items()
        }
    if kind == "array":
        return [_build_example(schema.get("items", {}), digest, text_chars)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    text = f"text {digest}"
    if text_chars is not None:
        words = (
            hashlib.blake2b(f"{digest}:{n}".encode(), digest_size=3).hexdigest() for n in range(text_chars // 7 + 1)
        )
        text = " ".join(words)[: text_chars - 1] + "."
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength", len(text))]


def _count_prompt_tokens(body: Mapping[str, Any]) -> int:
    return sum(len(re.findall(r"\w+", str(m["content"])[:4000])) for m in body["messages"])


def _build_completion(body: dict[str, Any], text: str, finish_reason: str, logprob: float = -0.2) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
    }
    if body.get("logprobs"):
        options = (body.get("structured_outputs") or {}).get("choice") or [text]
        top_logprobs = [{"token": o, "logprob": logprob if o == text else logprob - 1.5} for o in options]
        choice["logprobs"] = {"content": [{"token": text, "logprob": logprob, "top_logprobs": top_logprobs}]}
    prompt_tokens = _count_prompt_tokens(body)
    completion_tokens = len(text.split())
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "fake"),
        "choices": [choice],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def main(arguments: list[str]) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="a fake OpenAI-compatible model server with faults")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", help="answer 404 to requests for any other model")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--slots", type=int, help="requests worked on at a time; others wait")
    parser.add_argument("--max-queued", type=int, help="requests that may wait; beyond them 503")
    parser.add_argument("--hold-after", type=int, help="answers given; other requests wait until POST /release")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=SHARE", help=", ".join(FAULT_KINDS))
    parser.add_argument("--poison", help="a request that holds this text kills the server")
    parser.add_argument("--retry-after", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, help="append the digest of every request to this file")
    options = parser.parse_args(arguments)
    fault_rates = {name: float(rate) for name, rate in (fault.split("=") for fault in options.fault)}
    if unknown := set(fault_rates) - set(FAULT_KINDS):
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    config = FakeServerConfig(
        latency_s=options.latency_ms / 1000,
        slots=options.slots,
        max_queued=options.max_queued,
        hold_after=options.hold_after,
        served_model=options.model,
        fault_rates=fault_rates,
        poison=options.poison,
        retry_after_s=options.retry_after,
        seed=options.seed,
        journal_file=options.journal,
    )
    app = FakeServer(config).build_app()
    # The default is a minute in which it waits for clients to close what they keep open.
    web.run_app(app, host=options.host, port=options.port, shutdown_timeout=1.0, print=None, access_log=None)


if __name__ == "__main__":
    main(sys.argv[1:])
