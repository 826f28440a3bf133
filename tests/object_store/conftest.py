"""One S3 server for the session, and a lake of its own for every test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.object_store.server import BUCKET, StoreProcess


@pytest.fixture(scope="session")
def store() -> Iterator[StoreProcess]:
    with StoreProcess() as server:
        yield server


@pytest.fixture
def root(store: StoreProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """The root of an empty lake; the environment of the test reaches it."""
    for variable in ("AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in store.environment.items():
        monkeypatch.setenv(variable, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
