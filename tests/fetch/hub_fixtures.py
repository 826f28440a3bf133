"""A hub of the test's own and a home of its own; requests to loopback are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mvl_assets.fetch import hub as hub_module
from mvl_assets.fetch.ssrf_guard import ALLOW_PRIVATE_ENV
from tests.fetch.hub_server import HubServer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "MVL_SOURCES_LOCK", "MVL_LAKE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MVL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv(ALLOW_PRIVATE_ENV, "1")
    monkeypatch.setattr(hub_module, "BACKOFF_BASE_S", 0.001)
    yield server
    server.close()
