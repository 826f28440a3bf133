"""An S3 server on the loopback interface, in a process of its own: `python -m tests.object_store.server PORT`.

It is moto's. Three buckets behave as others do in the wild: `forgetful` ignores conditions, as a store without
put-if-absent does, `elsewhere` is in another region, and `guarded` knows another secret.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from mvl_assets.common.free_port import find_free_port
from mvl_assets.lake.storage import open_filesystem
from tests.patience import PATIENCE_S
from tests.servers import wait_for

PROJECT = Path(__file__).resolve().parents[2]
BUCKET, FORGETFUL, ELSEWHERE, GUARDED = "lake", "forgetful", "elsewhere", "guarded"
COUNT_PATH, EXPIRE_PATH, RENEW_PATH = "/count-listings", "/expire", "/renew"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hidden-word", "AWS_SESSION_TOKEN": "hidden-token"}


def list_files(uri: str) -> list[str]:
    """The objects below a prefix."""
    filesystem, path = open_filesystem(uri)
    entries = filesystem.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    return [entry.path for entry in entries if entry.type == pafs.FileType.File]


@dataclass
class StoreProcess:
    """The server, and what a client's environment needs to reach it."""

    port: int = field(default_factory=find_free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.endpoint, **KEYS}

    def count_listings(self) -> int:
        """How often any client has listed objects so far."""
        return int(self.get(COUNT_PATH))

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.endpoint + path, timeout=PATIENCE_S) as response:
            return bytes(response.read())

    @contextmanager
    def expired(self) -> Iterator[None]:
        """Meanwhile every client's session has expired."""
        self.get(EXPIRE_PATH)
        try:
            yield
        finally:
            self.get(RENEW_PATH)

    def __enter__(self) -> StoreProcess:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.object_store.server", str(self.port)], cwd=PROJECT, stderr=subprocess.DEVNULL
        )
        wait_for(f"{self.endpoint}/moto-api/")
        for bucket in (BUCKET, FORGETFUL):
            request = urllib.request.Request(f"{self.endpoint}/{bucket}", b"", method="PUT")
            urllib.request.urlopen(request, timeout=PATIENCE_S).close()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message><AWSAccessKeyId>{signed}</AWSAccessKeyId></Error>"""
REFUSALS = {
    ELSEWHERE: (
        "400 Bad Request",
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-north-1'",
    ),
    GUARDED: (
        "403 Forbidden",
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key.",
    ),
}
EXPIRED = ("400 Bad Request", "ExpiredToken", "The provided token has expired.")


def make_unlike(app: App) -> App:
    """The server with its unusual buckets."""

    n_listings = 0
    is_expired = False

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal n_listings, is_expired
        n_listings += "list-type=" in environ["QUERY_STRING"]
        if environ["PATH_INFO"] in (COUNT_PATH, EXPIRE_PATH, RENEW_PATH):
            is_expired = environ["PATH_INFO"] == EXPIRE_PATH
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(n_listings).encode()]
        bucket = environ["PATH_INFO"].split("/")[1]
        if bucket == FORGETFUL:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if bucket in REFUSALS or is_expired:
            status, code, message = REFUSALS.get(bucket, EXPIRED)
            start_response(status, [("Content-Type", "application/xml")])
            signed = environ.get("HTTP_AUTHORIZATION", "") + environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")
            body = ERROR.format(code=code, message=message, signed=signed).encode()
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
        return app(environ, start_response)

    return serve


def main(port: int) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", port, make_unlike(DomainDispatcherApplication(create_backend_app)), threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
