"""Model servers for tests: fake ones in a thread or a process, and the one real vLLM server of a session.

A conftest takes the fixture by importing it: `from tests.servers import vllm_server  # noqa: F401`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from mvl_assets.common.free_port import find_free_port
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.local_server.local_models import prepare_model
from mvl_assets.inference.local_server.server import ensure_server, stop_servers
from mvl_assets.inference.local_server.server_spec import ServerSpec, is_vllm_installed
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from tests.patience import PATIENCE_S

PROJECT = Path(__file__).parents[1]


def wait_for(url: str, seconds: float = PATIENCE_S) -> None:
    """Return once something answers at the URL."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE_S).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def serving(config: FakeServerConfig | None = None, port: int = 0) -> Iterator[tuple[FakeServer, Endpoint]]:
    """Run a fake server in a thread of this process, so that a test can inspect what it has seen."""
    server = FakeServer(config)
    with serve_in_thread(server.build_app(), port) as url:
        yield server, Endpoint(base_url=url, model="fake")


@contextmanager
def serve_in_thread(app: web.Application, port: int = 0) -> Iterator[str]:
    """Serve the app, and yield the base URL of its chat API."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    address: list[int] = []
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=0.1)
        await site.start()
        address.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(PATIENCE_S)
    try:
        yield f"http://127.0.0.1:{address[0]}/v1"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        loop.close()


class FakeProcess:
    """A fake server in a process of its own, which can be killed and started again on the same port."""

    def __init__(self, *arguments: str, host: str = "127.0.0.1", port: int | None = None) -> None:
        self.host = host
        self.port = find_free_port() if port is None else port
        self.arguments = arguments
        self.n_starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    def start(self) -> None:
        self.n_starts += 1
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mvl_assets.inference.testing.fake_server",
                "--host",
                self.host,
                "--port",
                str(self.port),
                *self.arguments,
            ]
        )
        wait_for(f"http://{self.host}:{self.port}/health")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self.host}:{self.port}{path}", timeout=PATIENCE_S) as response:
            return bytes(response.read())

    def release(self) -> None:
        """Let go of what `--hold-after` holds back."""
        request = urllib.request.Request(f"http://{self.host}:{self.port}/release", method="POST")
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()

    def counts(self) -> dict:
        return dict(json.loads(self.get("/counts")))

    def endpoint(self, **fields: object) -> Endpoint:
        return Endpoint(base_url=self.base_url, model="fake", **fields)  # type: ignore[arg-type]

    def restart(self) -> Endpoint:
        """Start the server again when it is gone, as an endpoint's `restart` does."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        return self.endpoint(restart=self.restart)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> FakeProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def get_cache_dir() -> Path:
    """Return the folder of prepared models that test sessions share: `MVL_TEST_CACHE`, or one that git ignores."""
    return Path(os.environ.get("MVL_TEST_CACHE", PROJECT / ".mvl" / "test-cache")).absolute()


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[Endpoint]:
    """SmolLM2-135M-Instruct on a real vLLM server, started once per session. Skips where vLLM is not installed.

    It reads text only: the model name to ask for is `endpoint.model`.
    """
    if not is_vllm_installed():
        pytest.skip("vLLM is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVL_HOME", str(get_cache_dir()))
        weights = prepare_model("smollm2-135m-instruct")
        spec = ServerSpec(str(weights), "smollm2", max_model_len=2048, max_num_seqs=16, idle_timeout_s=3600)
        endpoint = ensure_server(spec)
    yield endpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVL_HOME", str(get_cache_dir()))
        stop_servers(spec.name)
