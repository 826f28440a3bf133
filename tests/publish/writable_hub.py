"""A hub in small that can be written to, on loopback, as `huggingface_hub` calls it, with faults to switch on.

Repositories are created, files announced (preupload), stored by their sha256 (Git LFS's batch API, whole or in parts)
and committed. What is stored is known whether it was committed or not, as on the real hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.fetch.hub_server import LARGE, Fault, git_sha1

TOKEN = "hf_secret_of_the_tests"


@dataclass
class Commit:
    summary: str
    added: list[str]
    deleted: list[str]


@dataclass
class WritableRepo:
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)


class WritableHub:
    """Runs in a thread. `puts` counts the uploads that were stored, by sha256; `asked` are the requests in order.

    Files of more than `part_bytes` are sent in parts. An upload waits for `release` when `hold_after` uploads are
    stored; `held` says that one does.
    """

    def __init__(self) -> None:
        self.repos: dict[str, WritableRepo] = {}
        self.stored: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.puts: Counter[str] = Counter()
        self.faults: dict[str, Fault] = {}
        self.asked: list[tuple[str, str]] = []
        self.writers = {TOKEN}
        self.part_bytes: int | None = None
        self.hold_after: int | None = None
        self.held, self.release = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _build_handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


def _build_handler(hub: WritableHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            fault = next((f for word, f in hub.faults.items() if word in path and f.times > 0), None)
            if fault is not None:
                fault.times -= 1
                if fault.hang_up:
                    self.close_connection = True
                    return
            body = self._read_body()
            if fault is not None and fault.drop is not None:  # does it, and says nothing
                self._dispatch(path, body, is_silent=True)
                self.close_connection = True
            elif fault is not None:
                self._send(fault.status or 500, {"error": "no"}, fault.headers)
            else:
                self._dispatch(path, body)

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _dispatch(self, path: str, body: bytes, *, is_silent: bool = False) -> None:
            self.is_silent = is_silent
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if path.startswith("/storage/"):
                self._store(path.split("/")[2:], body)
            elif path.startswith("/complete/"):
                self._complete(json.loads(body))
            elif not token or not token.startswith("hf_"):
                self._send(401, {"error": "Invalid credentials"})
            elif path == "/api/repos/create":
                self._create(json.loads(body), token)
            elif path == "/api/validate-yaml":
                self._send(200, {"errors": [], "warnings": []})
            elif path.endswith(".git/info/lfs/objects/batch"):
                self._offer(json.loads(body))
            else:
                self._answer_for_repo(path, body, token)

        def _answer_for_repo(self, path: str, body: bytes, token: str) -> None:
            owner, name, *rest = path.removeprefix("/api/datasets/").split("/")
            repo = hub.repos.get(f"{owner}/{name}")
            if repo is None or (repo.private and token not in hub.writers):
                self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif not rest or rest[0] == "revision":
                self._send(200, {"id": f"{owner}/{name}", "private": repo.private, "sha": "0" * 40, "siblings": []})
            elif rest[0] == "tree":
                self._send(200, [_describe_file(n, d) for n, d in sorted(repo.files.items())])
            elif token not in hub.writers:
                self._send(403, {"error": "Forbidden"})
            elif rest[0] == "preupload":
                files = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
                self._send(200, {"files": files})
            else:
                self._commit(f"{owner}/{name}", repo, body)

        def _create(self, request: dict[str, Any], token: str) -> None:
            name = f"{request['organization']}/{request['name']}"
            if token not in hub.writers:
                self._send(403, {"error": "You don't have the rights to create a dataset under this namespace"})
                return
            known = name in hub.repos
            private = request.get("visibility") == "private" or bool(request.get("private"))
            hub.repos.setdefault(name, WritableRepo(private)).files.setdefault(".gitattributes", b"* text\n")
            self._send(409 if known else 200, {"url": f"{hub.url}/datasets/{name}"})

        def _offer(self, request: dict[str, Any]) -> None:
            objects = []
            for entry in request["objects"]:
                oid, size = entry["oid"], entry["size"]
                if oid in hub.stored:
                    objects.append({"oid": oid, "size": size})
                    continue
                upload: dict[str, Any] = {"href": f"{hub.url}/storage/{oid}?signature=signed_secret"}
                if hub.part_bytes is not None and size > hub.part_bytes:
                    urls = [f"{hub.url}/storage/{oid}/{n}?signature=s" for n in range(-(-size // hub.part_bytes))]
                    header = {f"{n + 1:05d}": url for n, url in enumerate(urls)}
                    upload = {
                        "href": f"{hub.url}/complete/{oid}",
                        "header": {"chunk_size": str(hub.part_bytes)} | header,
                    }
                objects.append({"oid": oid, "size": size, "actions": {"upload": upload}})
            self._send(200, {"objects": objects, "transfer": "basic"})

        def _store(self, place: list[str], body: bytes) -> None:
            if hub.hold_after is not None and sum(hub.puts.values()) >= hub.hold_after:
                hub.held.set()
                hub.release.wait(60)
                self.close_connection = True
                return
            if len(place) == 2:
                hub.parts[place[0], int(place[1])] = body
            elif hashlib.sha256(body).hexdigest() != place[0]:
                self._send(400, {"error": "wrong content"})
                return
            else:
                hub.stored[place[0]] = body
                hub.puts[place[0]] += 1
            self._send(200, {}, {"ETag": hashlib.md5(body).hexdigest()})

        def _complete(self, request: dict[str, Any]) -> None:
            oid = request["oid"]
            data = b"".join(hub.parts[oid, part["partNumber"] - 1] for part in request["parts"])
            if hashlib.sha256(data).hexdigest() != oid:
                self._send(400, {"error": "wrong content"})
                return
            hub.stored[oid] = data
            hub.puts[oid] += 1
            self._send(200, {})

        def _commit(self, name: str, repo: WritableRepo, body: bytes) -> None:
            commit = Commit("", [], [])
            for line in body.splitlines():
                item = json.loads(line)
                key, value = item["key"], item["value"]
                if key == "header":
                    commit.summary = value["summary"]
                elif key == "file":
                    repo.files[value["path"]] = base64.b64decode(value["content"])
                    commit.added.append(value["path"])
                elif key == "lfsFile":
                    repo.files[value["path"]] = hub.stored[value["oid"]]
                    commit.added.append(value["path"])
                else:
                    del repo.files[value["path"]]
                    commit.deleted.append(value["path"])
            repo.commits.append(commit)
            oid = f"{len(repo.commits):040x}"
            self._send(200, {"commitUrl": f"{hub.url}/datasets/{name}/commit/{oid}", "commitOid": oid})

        def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            if getattr(self, "is_silent", False):
                return
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _describe_file(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
    if len(data) >= LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry
