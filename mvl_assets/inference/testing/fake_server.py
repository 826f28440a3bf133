"""A stand-in for a model server, with faults on request: for tests, benchmarks, and trying things without a model.

`python -m mvl_assets.inference.testing.fake_server --port 8000 --latency-ms 50 --fault 429=0.05` serves the chat-completions
part of the OpenAI API as vLLM does, answers deterministically from the request, and counts what it was asked.
`GET /counts` returns the counts. The engine's tiny recovery questions are counted apart, as `probes`.

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
from typing import Any

from aiohttp import web

FAULTS = (
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
    "schema",  # JSON of another form than was asked for
    "white_space",  # nothing else, up to the token limit
    "length",  # finish_reason: length
    "half_character",  # a lone surrogate, which no UTF-8 holds
    "nan",  # log-probabilities that are no numbers
)
DRIP_S = 0.02
_ODD_TEXTS = {"half_character": "\ud83d", "schema": '{"nothing": ["of", "the kind"]}', "white_space": " \n\t" * 200}


@dataclass(slots=True)
class Behaviour:
    """`faults` maps a fault to the share of attempts that suffer it. A body holding `poison` kills the process.

    `markers` maps a text to a fault that every request holding it suffers, each time. With `fail_first` only the first
    so many attempts of a body can suffer a fault. Of `slots` requests at a time each takes `latency_s`; more wait, and
    beyond `queue` waiting ones the answer is 503, as vLLM's with `--max-num-queued-reqs`.
    """

    latency_s: float = 0.0
    slots: int | None = None
    queue: int | None = None
    # How many pictures it remembers by their `uuid`.
    pictures: int = 0
    faults: Mapping[str, float] = field(default_factory=dict)
    markers: Mapping[str, str] = field(default_factory=dict)
    fail_first: int | None = None
    poison: str | None = None
    retry_after_s: float = 0.1
    seed: int = 0
    # One line per request received: its digest. Survives the death of the server.
    journal: Path | None = None


class FakeServer:
    """The application and what it has seen. `down` makes everything answer 503, /health too."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.probes = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.down = False
        self.bodies: list[dict[str, Any]] = []
        self.keep_bodies = False
        self.waiting = 0
        self.pictures: OrderedDict[str, None] = OrderedDict()
        # Made by the first request: a semaphore belongs to the event loop that serves.
        self._slots: asyncio.Semaphore | None = None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/counts", self._counts)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.down else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        """As vLLM has it; a server without slots has no queue and says nothing of one."""
        text = "" if self.behaviour.slots is None else f'vllm:num_requests_waiting{{engine="0"}} {self.waiting:.1f}\n'
        return web.Response(text=text, content_type="text/plain")

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    async def _counts(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": sum(self.seen.values()),
                "distinct": len(self.seen),
                "answered": sum(self.answered.values()),
                "answered_twice": sum(1 for n in self.answered.values() if n > 1),
                "probes": self.probes,
                "faults": dict(self.faults),
                "most_in_flight": self.most_in_flight,
            }
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if self.down:
            return web.Response(status=503)
        body = json.loads(raw)
        if body["messages"] == [{"role": "user", "content": "."}] and body.get("max_tokens") == 1:
            self.probes += 1
            return web.json_response(_completion(body, "ok", "length"))
        digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
        self.seen[digest] += 1
        if self.keep_bodies:
            self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, raw, body, digest)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, raw: bytes, body: dict[str, Any], digest: str) -> web.StreamResponse:
        behaviour = self.behaviour
        if behaviour.journal is not None:
            with behaviour.journal.open("a", encoding="ascii") as journal:
                journal.write(f"{digest}\n")
        if behaviour.poison and behaviour.poison.encode() in raw:
            os._exit(9)
        if behaviour.slots is not None and behaviour.queue is not None and self.waiting >= behaviour.queue:
            self.faults["full"] += 1
            return web.json_response({"error": {"message": "the queue is full"}}, status=503)
        if (missing := self._look_at_pictures(body)) is not None:
            self.faults["forgotten"] += 1
            message = f"Cache miss for image at index {missing} but data is not provided."
            return web.json_response({"error": {"message": message}}, status=400)
        await self._work()
        fault = self._fault(raw, digest)
        if fault is not None:
            self.faults[fault] += 1
            response = await self._suffer(request, fault, body)
            if response is not None:
                return response
        self.answered[digest] += 1
        text = _ODD_TEXTS.get(fault or "") or _text(body, digest)
        finish_reason = "length" if fault in ("length", "white_space") else "stop"
        return web.json_response(_completion(body, text, finish_reason, math.nan if fault == "nan" else -0.2))

    def _look_at_pictures(self, body: dict[str, Any]) -> int | None:
        """Remembers those that have a name. Returns the place of one that came without bytes and is not known."""
        parts = [p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"]]
        for place, part in enumerate(part for part in parts if part["type"] == "image_url"):
            name = part.get("uuid")
            if "url" not in (part["image_url"] or {}) and name not in self.pictures:
                return place
            if name is not None:
                self.pictures[name] = None
                self.pictures.move_to_end(name)
        while len(self.pictures) > self.behaviour.pictures:
            self.pictures.popitem(last=False)
        return None

    async def _work(self) -> None:
        latency_s = self.behaviour.latency_s
        if self.behaviour.slots is None:
            if latency_s:
                await asyncio.sleep(latency_s)
            return
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.behaviour.slots)
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        try:
            await asyncio.sleep(latency_s)
        finally:
            self._slots.release()

    def _fault(self, raw: bytes, digest: str) -> str | None:
        behaviour = self.behaviour
        attempt = self.seen[digest]
        if behaviour.fail_first is not None and attempt > behaviour.fail_first:
            return None
        for marker, fault in behaviour.markers.items():
            if marker.encode() in raw:
                return fault
        draw = hashlib.blake2b(f"{behaviour.seed}:{digest}:{attempt}".encode(), digest_size=8).digest()
        point = int.from_bytes(draw, "big") / 2**64
        for fault, share in behaviour.faults.items():
            if point < share:
                return fault
            point -= share
        return None

    async def _suffer(self, request: web.Request, fault: str, body: Any) -> web.StreamResponse | None:
        if fault in ("429", "429_bare", "429_date"):
            later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
            wait = {"429": str(self.behaviour.retry_after_s), "429_date": format_datetime(later, usegmt=True)}.get(
                fault
            )
            headers = {} if wait is None else {"Retry-After": wait}
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
                await asyncio.sleep(DRIP_S)
        if fault == "reset":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"choices": [')
            assert request.transport is not None
            request.transport.abort()
            return response
        return None


def _text(body: dict[str, Any], digest: str) -> str:
    """A deterministic answer in the form that was asked for."""
    choices = (body.get("structured_outputs") or {}).get("choice")
    if choices:
        return str(choices[int(digest, 16) % len(choices)])
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    if schema is not None:
        return json.dumps(_example(schema, digest))
    return f"answer {digest}"


def _example(schema: Mapping[str, Any], digest: str) -> Any:
    """The smallest value that fits the parts of JSON schema that prompts use."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][int(digest, 16) % len(schema["enum"])]
    kind = schema.get("type")
    if kind == "object":
        return {name: _example(part, digest) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_example(schema.get("items", {}), digest)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    text = f"text {digest}"
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength", len(text))]


def _completion(body: dict[str, Any], text: str, finish_reason: str, logprob: float = -0.2) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
    }
    if body.get("logprobs"):
        options = (body.get("structured_outputs") or {}).get("choice") or [text]
        top = [{"token": o, "logprob": logprob if o == text else logprob - 1.5} for o in options]
        choice["logprobs"] = {"content": [{"token": text, "logprob": logprob, "top_logprobs": top}]}
    prompt_tokens = sum(len(re.findall(r"\w+", str(m["content"])[:4000])) for m in body["messages"])
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
    parser = argparse.ArgumentParser(description="a fake OpenAI-compatible model server with faults")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--slots", type=int, help="requests worked on at a time; others wait")
    parser.add_argument("--queue", type=int, help="requests that may wait; beyond them 503")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=SHARE", help=", ".join(FAULTS))
    parser.add_argument("--poison", help="a request that holds this text kills the server")
    parser.add_argument("--retry-after", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, help="append the digest of every request to this file")
    options = parser.parse_args(arguments)
    faults = {name: float(share) for name, share in (fault.split("=") for fault in options.fault)}
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    behaviour = Behaviour(
        latency_s=options.latency_ms / 1000,
        slots=options.slots,
        queue=options.queue,
        faults=faults,
        poison=options.poison,
        retry_after_s=options.retry_after,
        seed=options.seed,
        journal=options.journal,
    )
    web.run_app(FakeServer(behaviour).app(), host=options.host, port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main(sys.argv[1:])
