"""The two code locations as declared, and a small world that was built once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import mvl_assets.definitions
import mvl_training.definitions
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import PROFILES_DIR
from tests.defs.world import FORGETFUL, PARTITIONS, TABLES, World, point_at, prepare
from tests.servers import FakeServer, serving


@pytest.fixture(scope="session")
def locations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dg.Definitions]:
    """The two code locations with the default profile and scores, by name, as if every source had files."""
    home = tmp_path_factory.mktemp("home")
    for slug in load_catalog():
        (home / "raw" / slug).mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVL_HOME", str(home))
        patch.setenv("MVL_EVAL_PYTHON", sys.executable)
        for name in ("MVL_LAKE", "MVL_PROMPTS"):
            patch.delenv(name, raising=False)
        demo_profile = (PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8")
        (home / "profile.yaml").write_text(demo_profile.replace("score_rows: 0", "score_rows: 1000"), encoding="utf-8")
        patch.setenv("MVL_PROFILE", str(home / "profile.yaml"))
        forget()
        result = {
            "mvl_assets": mvl_assets.definitions.build_defs(),
            "mvl_training": mvl_training.definitions.build_defs(),
        }
    forget()
    return result


@pytest.fixture(scope="session")
def model() -> Iterator[tuple[FakeServer, str]]:
    """A fake model server and its address."""
    with serving() as (server, endpoint):
        yield server, endpoint.base_url


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, model: tuple[FakeServer, str]) -> World:
    """Not to be written to: take `world`."""
    home = tmp_path_factory.mktemp("built") / "home"
    home.mkdir()
    prepare(home, model[1])
    with pytest.MonkeyPatch.context() as patch:
        point_at(home, patch)
        world = World(home, dg.Definitions())
        world.reload()
        world.report_prompts()
        for asset, partition in [*PARTITIONS, *((table, None) for table in TABLES)]:
            assert world.make(asset, partition).success
    forget()
    return world


@pytest.fixture
def world(built: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A copy of the built world, which a test may change."""
    home = tmp_path / "home"
    shutil.copytree(built.home, home, symlinks=True)
    point_at(home, monkeypatch)
    forget()
    yield World(home, built.definitions)
    forget()


def forget() -> None:
    for remembered in FORGETFUL:
        remembered.cache_clear()
