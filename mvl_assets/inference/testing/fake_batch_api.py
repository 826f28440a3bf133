"""The batch endpoints of the OpenAI API, faked: files, batches and what can go wrong with them.

A batch is worked on at each look at it, so a test is not timed. A text in a request (`fault_by_marker`) makes its line
go wrong: `drop` leaves it out of all files, `expire` makes the whole batch expire without it, `invalid` makes the
server refuse the file for that line, an HTTP status is the line's answer; with `n_fault_attempts` only at first.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from mvl_assets.inference.testing.fake_server import FakeServer


@dataclass(slots=True)
class FakeBatchConfig:
    """Behaviour of a fake batch API.

    Attributes:
        polls: Looks at a batch until it has ended.
        fault_by_marker: What goes wrong with a line that holds a text.
        n_fault_attempts: Only so many first times that a line comes.
        lose_answer_of: Steps of which the first call is done and then the connection broken off.
        limited: Number of batches, of the first ones, that fail because of the server's limit of tokens.
        refuse_status: The answer to every call that makes a batch; None to make it.
    """

    polls: int = 2
    fault_by_marker: Mapping[str, str] = field(default_factory=dict)
    n_fault_attempts: int | None = None
    lose_answer_of: set[str] = field(default_factory=set)
    limited: int = 0
    refuse_status: int | None = None


class FakeBatchApi:
    """A server with the chat endpoint of `FakeServer` and batch endpoints.

    Attributes:
        paid: How often each request was answered, by its custom id.
        hold_at: A step, `upload` ..., with `before:` or `after:`: its first call waits there until it is None.
        held: The calls that have waited.
    """

    def __init__(self, config: FakeBatchConfig | None = None) -> None:
        self.config = config or FakeBatchConfig()
        self.chat = FakeServer()
        self.paid: Counter[str] = Counter()
        self.line_counts: Counter[str] = Counter()
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.n_polls: Counter[str] = Counter()
        self.n_listed = 0
        self.hold_at: str | None = None
        self.held: list[str] = []

    def build_app(self) -> web.Application:
        """Return the server."""
        app = self.chat.build_app()
        app.router.add_post("/v1/files", self._run_step("upload", self._store_file))
        app.router.add_get("/v1/files", self._list_files)
        app.router.add_delete("/v1/files/{id}", self._run_step("delete", self._delete))
        app.router.add_get("/v1/files/{id}/content", self._download)
        app.router.add_post("/v1/batches", self._run_step("create", self._create))
        app.router.add_get("/v1/batches", self._list_batches)
        app.router.add_get("/v1/batches/{id}", self._run_step("poll", self._read_batch))
        return app

    def _run_step(self, step: str, handle: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
        async def run(request: web.Request) -> web.StreamResponse:
            if step == "create":
                await request.read()  # the client may be gone when the call goes on
            await self._wait(f"before:{step}")
            response = await handle(request)
            await self._wait(f"after:{step}")
            if step in self.config.lose_answer_of:
                self.config.lose_answer_of.discard(step)
                assert request.transport is not None
                request.transport.abort()
            return response

        return run

    async def _wait(self, point: str) -> None:
        if self.hold_at == point and point not in self.held:
            self.held.append(point)
            while self.hold_at == point:
                await asyncio.sleep(0.01)

    async def _store_file(self, request: web.Request) -> web.Response:
        name, content = "", b""
        async for part in await request.multipart():
            if part.name == "file":  # type: ignore[union-attr]
                name, content = part.filename or "", bytes(await part.read())  # type: ignore[union-attr]
        file_id = self._add_file(name, content)
        return web.json_response({"id": file_id, "object": "file", "filename": name, "purpose": "batch"})

    def _add_file(self, name: str, content: bytes) -> str:
        file_id = f"file-{uuid.uuid4().hex[:12]}"
        self.files[file_id] = (name, content)
        return file_id

    async def _list_files(self, request: web.Request) -> web.Response:
        entries = [{"id": file_id, "filename": name} for file_id, (name, _) in reversed(self.files.items())]
        return web.json_response({"object": "list", "data": entries, "has_more": False})

    async def _delete(self, request: web.Request) -> web.Response:
        self.files.pop(request.match_info["id"], None)
        return web.json_response({"id": request.match_info["id"], "deleted": True})

    async def _download(self, request: web.Request) -> web.Response:
        file_id = request.match_info["id"]
        if file_id not in self.files:
            return web.json_response({"error": {"message": "no such file"}}, status=404)
        name, content = self.files[file_id]
        await self._wait(f"before:{name}")
        return web.Response(body=content)

    async def _create(self, request: web.Request) -> web.Response:
        if self.config.refuse_status is not None:
            return web.json_response({"error": {"message": "refused"}}, status=self.config.refuse_status)
        return web.json_response(self.create_batch(await request.json()))

    def add_batch(self, custom_id: str) -> dict[str, Any]:
        """Make a batch of one request, as a client of an earlier run would have."""
        body = {"model": "fake", "messages": [{"role": "user", "content": custom_id}]}
        line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
        file_id = self._add_file("earlier.jsonl", json.dumps(line).encode())
        return self.create_batch({"input_file_id": file_id, "endpoint": line["url"], "completion_window": "24h"})

    def create_batch(self, body: Mapping[str, Any]) -> dict[str, Any]:
        file_id = body["input_file_id"]
        batch_id = f"batch_{uuid.uuid4().hex[:12]}"
        batch: dict[str, Any] = {
            "id": batch_id,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": file_id,
            "completion_window": body["completion_window"],
            "status": "validating",
            "created_at": int(time.time()),
            "metadata": body.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        self.batches[batch_id] = batch
        if file_id not in self.files:
            _fail(batch, "invalid_file", "the file is not there", None)
        elif self.config.limited > 0:
            self.config.limited -= 1
            _fail(batch, "token_limit_exceeded", "Enqueued token limit reached", None)
        return batch

    async def _list_batches(self, request: web.Request) -> web.Response:
        self.n_listed += 1
        newest_first = list(reversed(self.batches.values()))
        after = request.query.get("after")
        start = 0 if after is None else 1 + [b["id"] for b in newest_first].index(after)
        page = newest_first[start : start + int(request.query.get("limit", 20))]
        return web.json_response({"object": "list", "data": page, "has_more": start + len(page) < len(newest_first)})

    async def _read_batch(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        self.n_polls[batch["id"]] += 1
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        elif batch["status"] == "in_progress" and self.n_polls[batch["id"]] >= self.config.polls:
            await self._finish(batch)
        return web.json_response(batch)

    async def _finish(self, batch: dict[str, Any]) -> None:
        """Answer every request of a batch, and end it."""
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]][1].splitlines()]
        faults = {}
        for line in lines:
            self.line_counts[line["custom_id"]] += 1
            faults[line["custom_id"]] = self._find_fault(line)
        if "invalid" in faults.values():
            number = 1 + list(faults.values()).index("invalid")
            _fail(batch, "invalid_request", "a line that makes no sense", number)
            return
        answered, failed = [], []
        for line in lines:
            key, fault = line["custom_id"], faults[line["custom_id"]]
            if fault == "expire":
                error = {"code": "batch_expired", "message": "this request was not executed in time"}
                failed.append({"id": "r", "custom_id": key, "response": None, "error": error})
            elif fault is None or fault == "malformed":
                self.paid[key] += fault is None
                body = self._answer(line) if fault is None else {"choices": []}
                answered.append(
                    {"id": "r", "custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}
                )
            elif fault != "drop":
                body = {"error": {"message": f"fault {fault}"}}
                failed.append({"id": "r", "custom_id": key, "response": {"status_code": int(fault), "body": body}})
        # Not in the order of the requests, as the real one.
        answered.sort(key=lambda entry: hashlib.blake2b(entry["custom_id"].encode()).digest())
        batch["status"] = "expired" if "expire" in faults.values() else "completed"
        batch[f"{batch['status']}_at"] = int(time.time())
        batch["request_counts"] = {"total": len(lines), "completed": len(answered), "failed": len(failed)}
        for field_name, entries in (("output_file_id", answered), ("error_file_id", failed)):
            if entries:
                content = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
                batch[field_name] = self._add_file(field_name.split("_")[0], content)

    def _answer(self, line: Mapping[str, Any]) -> dict[str, Any]:
        return self.chat.build_answer(line["body"])

    def _find_fault(self, line: Mapping[str, Any]) -> str | None:
        config, text = self.config, json.dumps(line["body"])
        if config.n_fault_attempts is not None and self.line_counts[line["custom_id"]] > config.n_fault_attempts:
            return None
        return next((f for marker, f in config.fault_by_marker.items() if re.search(rf"{marker}\b", text)), None)


def _fail(batch: dict[str, Any], code: str, message: str, line: int | None) -> None:
    batch["status"], batch["failed_at"] = "failed", int(time.time())
    batch["errors"] = {"object": "list", "data": [{"code": code, "message": message, "line": line}]}
