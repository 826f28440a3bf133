"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake

TESTS = Path(__file__).parent

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Rooms whose tests take longest: two workers that begin with these end at about the same time.
LONGEST = ("servers", "cli", "training", "training_defs", "readers", "defs")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a fixture runs in one of the workers of `pytest -n 2 --dist loadgroup`: the tests of one room, and
    all that use the real server, which so is started once."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: LONGEST.index(groups[item]) if groups[item] in LONGEST else len(LONGEST))


def _group(item: pytest.Item) -> str:
    if any(item.get_closest_marker(name) for name in ("server", "road", "browser")):
        return "servers"
    return item.path.relative_to(TESTS).parts[0]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake of the test's own."""
    return Lake(str(tmp_path / "lake"))
