"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import re
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.lake.lake import Lake

TESTS = Path(__file__).parent

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes longest comes first: two workers then end at about the same time.
LONGEST = ("servers", "cli", "training", "training_defs", "readers", "defs")


@cache
def together(file: str) -> str:
    """The name of the tests that one worker of `pytest -n 2` runs because they share what is costly to make: those of a
    room, and those of every file that needs the real server, which so is started once."""
    if re.search(r"mark\.(server|road|browser)\b", (TESTS.parent / file).read_text(encoding="utf-8")):
        return "servers"
    return Path(file).parts[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        name = together(item.nodeid.partition("::")[0])
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid.partition("::")[0])

    return Rooms(config, log)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake of the test's own."""
    return Lake(str(tmp_path / "lake"))
