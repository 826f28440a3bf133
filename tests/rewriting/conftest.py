"""A fake server that keeps the bodies of its requests; `vllm_server` is the one real server of a session."""

from collections.abc import Iterator

import pytest

from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer
from tests.servers import serving, vllm_server  # noqa: F401


@pytest.fixture
def served() -> Iterator[tuple[FakeServer, Endpoint]]:
    with serving() as (server, endpoint):
        server.record_bodies = True
        yield server, endpoint
