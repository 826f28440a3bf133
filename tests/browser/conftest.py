"""The real web interface on a small lake of its own, and a headless Chromium that looks at it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mvl_assets.cli.doctor import CHROMIUM_EXECUTABLES
from mvl_assets.common.free_port import find_free_port
from mvl_assets.runner.dagster_home import prepare_home
from tests.defs.world import FORGETFUL, PARTITIONS, World, point_at, prepare
from tests.patience import PATIENCE_S
from tests.servers import FakeServer, serving

# No sandbox: tests also run as root in containers. The rest keeps Chromium from asking the internet.
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STOP_S = 120.0


@dataclass
class Site:
    """A running web interface: what it serves, and the lake and model behind it."""

    url: str
    world: World
    model: FakeServer

    def graphql(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def wait(self, what: str, ask: Callable[[], Any]) -> Any:
        """The first true answer. Fails naming `what`."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if answer := ask():
                return answer
            assert time.monotonic() < deadline, f"{what}: not after {PATIENCE_S:.0f} s"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`mvl ui` on a free port: two sources of one category are read and categorised, nothing is rewritten."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if _chromium() is None:
        pytest.skip("there is no Chromium: sudo apt-get install chromium")
    home = tmp_path_factory.mktemp("site") / "home"
    home.mkdir()
    with serving() as (model, endpoint):
        prepare(home, endpoint.base_url)
        with pytest.MonkeyPatch.context() as patch:
            point_at(home, patch)
            prepare_home()
            world = World(home, dg.Definitions())
            world.reload()
            for asset, partition in PARTITIONS:
                if asset.startswith(("raw", "category")):
                    world.make(asset, partition)
            port = find_free_port()
            with _running(port, home):
                yield Site(f"http://127.0.0.1:{port}", world, model)
    for remembered in FORGETFUL:
        remembered.cache_clear()


class _running:
    """The web interface as a process group of its own, which is gone afterwards."""

    def __init__(self, port: int, home: Path) -> None:
        self.port, self.log = port, home / "ui.log"

    def __enter__(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from mvl_assets.cli import main; main()", "ui", "--port", str(self.port)],
                cwd=Path(__file__).resolve().parents[2],
                env=os.environ | {"DAGSTER_DISABLE_TELEMETRY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                pytest.fail(f"the web interface did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        for sent, patience in ((signal.SIGINT, STOP_S), (signal.SIGKILL, STOP_S)):
            deadline = time.monotonic() + patience
            while self._alive(sent) and time.monotonic() < deadline:
                sent = signal.Signals(signal.SIGCONT)  # asked once; only looks from now on
                self.process.poll()
                time.sleep(0.2)
        assert not self._alive(signal.SIGCONT), "processes of the web interface are left"

    def _alive(self, sent: signal.Signals) -> bool:
        try:
            os.killpg(self.process.pid, sent)
        except ProcessLookupError:
            return False
        return True

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/server_info", timeout=PATIENCE_S).close()
        except OSError:
            return False
        return True


@dataclass
class Browser:
    """One page of Chromium. `complaints` are errors on its console and requests that went anywhere else."""

    page: Any
    site: Site
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page: {error}"))
        self.page.on("request", self._request)

    def open(self, path: str) -> None:
        """Until the page has asked all it asks at first: before that its buttons do nothing."""
        self.page.goto(self.site.url + path, wait_until="networkidle")

    def click(self, text: str) -> None:
        """Clicks the button of that text. Dagster's pages carry no test ids, and roles do not find its buttons."""
        self.page.locator("button", has_text=text).locator("visible=true").first.click()

    def see(self, text: str) -> None:
        self.page.get_by_text(text).locator("visible=true").first.wait_for()

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.site.url, "data:", "blob:")):
            self.complaints.append(f"request: {request.url}")


@pytest.fixture
def browser(site: Site, tmp_path: Path) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_chromium(), args=list(CHROMIUM_FLAGS))
        page = chromium.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(PATIENCE_S * 1000)
        yield Browser(page, site)
        page.screenshot(path=tmp_path / "last.png")
        chromium.close()


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM_EXECUTABLES)), None)
