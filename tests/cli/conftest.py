"""A small lake through the whole command line, made once per session against a fake model server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.home import SOURCES, Home
from tests.servers import FakeProcess


@pytest.fixture(scope="session")
def model() -> Iterator[FakeProcess]:
    with FakeProcess("--latency-ms", "5") as server:
        yield server


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory, model: FakeProcess) -> Home:
    """A home with the files of three drawn sources and nothing in the lake. Not to be written to."""
    home = Home(tmp_path_factory.mktemp("raw") / "home")
    home.profile(model_base_urls=[model.base_url])
    home.run("demo-data", *SOURCES, "--rows", "16")
    return home


@pytest.fixture(scope="session")
def sorted_in(raw: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same after `mvl run --until category`. Not to be written to."""
    home = raw.copy(tmp_path_factory.mktemp("sorted") / "home")
    home.run("run", *SOURCES, "--until", "category")
    return home


@pytest.fixture(scope="session")
def built(sorted_in: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same after `mvl run --until mixture`. Not to be written to."""
    home = sorted_in.copy(tmp_path_factory.mktemp("built") / "home")
    home.run("run", *SOURCES, "--until", "mixture")
    return home


@pytest.fixture
def fresh(raw: Home, tmp_path: Path) -> Home:
    """Files, a profile, and no lake yet."""
    return raw.copy(tmp_path / "home")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Home], Home]:
    return lambda home: home.copy(tmp_path / "copy")
