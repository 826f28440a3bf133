"""A hub in small, on loopback: the addresses that `huggingface_hub` and the fetch ask, with faults to switch on.

As the real one it answers `/api/datasets/<id>` with names, sizes and checksums, sends small files itself, and redirects
large ones to another host (here the same server under its other name) that knows neither the token nor the commit.
Plain files for addresses without a hub lie under `/plain/`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.patience import PATIENCE_S

LARGE = 1000
"""Files of at least so many bytes are kept as large files, as Git LFS does."""
PIECE = 1 << 14


@dataclass
class Repo:
    """One dataset repository at its newest commit; `sizes` are files whose content is never requested."""

    files: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    license: str | list[str] | None = None
    gated: str | bool = False
    private: bool = False
    old: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        content = sorted((n, hashlib.sha1(d).hexdigest()) for n, d in self.files.items())
        return hashlib.sha1(json.dumps([content, sorted(self.sizes.items())]).encode()).hexdigest()

    def change(self, files: dict[str, bytes | None]) -> None:
        """A new commit; None removes a file."""
        self.old[self.commit] = dict(self.files)
        for name, data in files.items():
            if data is None:
                del self.files[name]
            else:
                self.files[name] = data

    def at(self, revision: str) -> dict[str, bytes] | None:
        return self.files if revision in (self.commit, "main") else self.old.get(revision)


@dataclass
class Fault:
    """What goes wrong with the next `times` answers whose path contains a word.

    `status` answers with that; `drop` closes the connection after so many bytes of body, `hold` waits there for
    `release`; `redirect` sends elsewhere; `page` answers with HTML; `headers` are added; `body` is sent instead;
    `no_ranges` sends the whole file whatever is asked for; `chunked` sends it in chunks, without its length; `hang_up`
    closes the connection without an answer.
    """

    times: int = 1
    status: int | None = None
    drop: int | None = None
    hold: int | None = None
    redirect: str | None = None
    page: bool = False
    body: bytes | None = None
    no_ranges: bool = False
    chunked: bool = False
    hang_up: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_of_the_body(self) -> bool:
        """Whether it shows only to who asks for more than the first byte."""
        return self.drop is not None or self.hold is not None or self.body is not None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or has heard enough is no error here."""


class HubServer:
    """Runs in a thread. `asked` are the requests in order, `sent` counts body bytes by the last part of the path."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.plain: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.token: str | None = None
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.sent: Counter[str] = Counter()
        self.held, self.release = threading.Event(), threading.Event()
        # Bodies on their way now, and at most.
        self.at_once = self.most_at_once = 0
        self._counting = threading.Lock()
        # How much of a file the client has written; a connection is dropped when it has all that was sent.
        self.written: Callable[[], int] = lambda: 1 << 60
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_name(self) -> str:
        """The same server as another host: what a content delivery network is to the hub."""
        return f"http://localhost:{self.port}"

    def requests_of(self, word: str) -> list[dict[str, str]]:
        return [headers for _, path, headers in self.asked if word in path]

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._counting:
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            yield
        finally:
            with self._counting:
                self.at_once -= 1

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sibling(repo: str, name: str, data: bytes | None, size: int) -> dict[str, Any]:
    """One file in the hub's answer."""
    if data is None:
        digest = hashlib.sha256(f"{repo} {name} {size}".encode()).hexdigest()
    elif len(data) < LARGE:
        return {"rfilename": name, "size": size, "blobId": git_sha1(data)}
    else:
        digest = hashlib.sha256(data).hexdigest()
    return {
        "rfilename": name,
        "size": size,
        "blobId": hashlib.sha1(digest.encode()).hexdigest(),
        "lfs": {"sha256": digest, "size": size, "pointerSize": 134},
    }


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
            fault = self._fault(path)
            if fault.hang_up:
                self.close_connection = True
            elif fault.status is not None:
                self._plain(fault.status, b"no", fault.headers)
            elif fault.redirect is not None:
                self._plain(302, b"", {"Location": fault.redirect})
            elif fault.page:
                self._plain(200, b"<html>log in first</html>", {"Content-Type": "text/html; charset=utf-8"})
            elif path.startswith("/api/datasets/"):
                self._info(path.removeprefix("/api/datasets/"))
            elif path.startswith("/datasets/"):
                self._resolve(path.removeprefix("/datasets/"), fault)
            elif path.startswith("/cdn/"):
                self._send(path, _by_digest(hub, path.split("/")[2]), fault)
            elif path.startswith("/plain/"):
                self._send(path, hub.plain.get(path.removeprefix("/plain/")), fault)
            else:
                self._plain(404, b"", {})

        def _fault(self, path: str) -> Fault:
            only_asks = self.headers.get("Range") == "bytes=0-0"
            for word, fault in hub.faults.items():
                if word in path and fault.times > 0 and not (only_asks and fault.is_of_the_body):
                    fault.times -= 1
                    return fault
            return Fault(times=0)

        def _may_read(self, repo: Repo, *, content: bool) -> bool:
            """Everybody sees what a gated repository holds, and its members what is in it."""
            known = hub.token is not None and self.headers.get("Authorization") == f"Bearer {hub.token}"
            return known or not (repo.private or (repo.gated and content))

        def _info(self, rest: str) -> None:
            name = "/".join(rest.split("/")[:2])
            repo = hub.repos.get(name)
            if repo is None or not self._may_read(repo, content=False):
                self._no_repo()
                return
            data = {n: sibling(name, n, d, len(d)) for n, d in repo.files.items()}
            data |= {n: sibling(name, n, None, size) for n, size in repo.sizes.items()}
            card = {} if repo.license is None else {"license": repo.license}
            info = {
                "id": name,
                "sha": repo.commit,
                "private": repo.private,
                "gated": repo.gated,
                "cardData": card,
                "siblings": [data[n] for n in sorted(data)],
            }
            self._plain(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

        def _resolve(self, rest: str, fault: Fault) -> None:
            owner, name, _, revision, path = rest.split("/", 4)
            repo = hub.repos.get(f"{owner}/{name}")
            if repo is None:
                self._no_repo()
                return
            if not self._may_read(repo, content=True):
                headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this dataset is restricted."}
                self._plain(403 if "Authorization" in self.headers else 401, b"", headers)
                return
            files = repo.at(revision)
            if files is None or path not in files:
                self._plain(404, b"", {"X-Error-Code": "EntryNotFound" if files else "RevisionNotFound"})
                return
            data = files[path]
            if len(data) >= LARGE:
                digest = hashlib.sha256(data).hexdigest()
                linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"', "X-Repo-Commit": revision}
                place = f"{hub.other_name}/cdn/{digest}/{path.rsplit('/', 1)[-1]}?signature=a%2Fb"
                self._plain(302, b"", {**linked, "Location": place})
            else:
                self._send(path, data, fault)

        def _no_repo(self) -> None:
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self._plain(404 if "Authorization" in self.headers else 401, b"", headers)

        def _plain(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _send(self, path: str, data: bytes | None, fault: Fault) -> None:
            if data is None:
                self._plain(404, b"", {})
                return
            data = data if fault.body is None else fault.body
            tag = f'"{hashlib.md5(data).hexdigest()}"'
            begin, end = 0, len(data)
            asked = self.headers.get("Range")
            partly = bool(asked) and self.headers.get("If-Range") in (None, tag) and not fault.no_ranges
            if partly and asked:
                first, last = asked.removeprefix("bytes=").split("-")
                begin, end = int(first), int(last) + 1 if last else len(data)
                if begin >= len(data):
                    self._plain(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                    return
            self.send_response(206 if partly else 200)
            if partly:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
            known = {"ETag": tag, "Content-Length": str(end - begin), "Content-Type": "application/octet-stream"}
            if fault.chunked:
                known = {"Transfer-Encoding": "chunked"}
            for name, value in {**known, **fault.headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                with hub.counted():
                    self._stream(path.rsplit("/", 1)[-1], data[begin:end], fault, begin)

        def _stream(self, name: str, data: bytes, fault: Fault, begin: int) -> None:
            stop = fault.drop if fault.drop is not None else fault.hold
            for at in range(0, len(data), PIECE):
                piece = data[at : at + PIECE]
                if stop is not None and at + len(piece) > stop:
                    piece = data[at:stop]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if fault.chunked else piece)
                self.wfile.flush()
                hub.sent[name] += len(piece)
                if stop is not None and at + len(piece) >= stop:
                    wait_until(lambda: hub.written() >= begin + (stop or 0))
                    if fault.hold is not None:
                        hub.held.set()
                        hub.release.wait(PATIENCE_S)
                    self.close_connection = True
                    return
            if fault.chunked:
                self.wfile.write(b"0\r\n\r\n")

    return Handler


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.002)


def _by_digest(hub: HubServer, digest: str) -> bytes | None:
    every = [files for repo in hub.repos.values() for files in (repo.files, *repo.old.values())]
    return next((d for files in every for d in files.values() if hashlib.sha256(d).hexdigest() == digest), None)
