"""A journalling proxy in front of a model server: shows what was really sent, also across kills of client and server.

`python -m mvl_assets.inference.testing.proxy --upstream http://127.0.0.1:8000 --port 8001 --journal requests.jsonl`
forwards everything, and appends one JSON line for each chat request that it receives and one when the complete answer
has gone back: `{"event": "received" | "answered", "digest": <of the body>, "timestamp": <seconds since the epoch>,
"status": ...}`. Bodies are not kept. The engine's probes are not journalled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from mvl_assets.inference.client.chat_protocol import is_probe
from mvl_assets.inference.client.output_forms import is_form_probe

CHAT_PATH = "/v1/chat/completions"
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length"})


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line of the journal."""

    event: str
    digest: str
    timestamp: float
    status: int | None


def read_journal(journal: Path) -> Iterator[JournalEntry]:
    """Yield the lines of a journal, in order; none when the file does not exist."""
    if journal.exists():
        with journal.open(encoding="ascii") as lines:
            for line in lines:
                yield JournalEntry(**json.loads(line))


def count_requests(journal: Path) -> Counter[str]:
    """Return how often each request was received, by digest."""
    return Counter(entry.digest for entry in read_journal(journal) if entry.event == "received")


class Proxy:
    """Forwards to `upstream`, and appends to `journal`."""

    def __init__(self, upstream: str, journal: Path) -> None:
        self._upstream = upstream.rstrip("/")
        self._journal = journal

    def build_app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.cleanup_ctx.append(self._open_session)
        app.router.add_route("*", "/{path:.*}", self._forward)
        return app

    async def _open_session(self, app: web.Application):  # type: ignore[no-untyped-def]
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        yield
        await self._client.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        is_journalled = request.path == CHAT_PATH and not _is_probe_body(body)
        digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        if is_journalled:
            self._append_entry("received", digest, None)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            async with self._client.request(
                request.method, self._upstream + request.path_qs, data=body, headers=headers
            ) as upstream_response:
                content = await upstream_response.read()
        except aiohttp.ClientError as error:
            # The client sees what it would have seen without the proxy: a connection that breaks.
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPBadGateway(text=str(error)) from error
        response = web.Response(
            status=upstream_response.status,
            body=content,
            headers={n: v for n, v in upstream_response.headers.items() if n.lower() not in _HOP_BY_HOP},
        )
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionResetError:  # the client is gone: the request was not answered
            return response
        if is_journalled:
            self._append_entry("answered", digest, upstream_response.status)
        return response

    def _append_entry(self, event: str, digest: str, status: int | None) -> None:
        line = json.dumps({"event": event, "digest": digest, "timestamp": time.time(), "status": status})
        with self._journal.open("a", encoding="ascii") as journal:
            journal.write(line + "\n")


def _is_probe_body(body: bytes) -> bool:
    try:
        decoded = json.loads(body)
    except ValueError:
        return False
    return is_probe(decoded) or is_form_probe(decoded)


def main(arguments: list[str]) -> None:
    """Forward until interrupted."""
    parser = argparse.ArgumentParser(description="forwards to a model server and journals the requests")
    parser.add_argument("--upstream", required=True, metavar="URL", help="without /v1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args(arguments)
    app = Proxy(options.upstream, options.journal).build_app()
    web.run_app(app, host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main(sys.argv[1:])
