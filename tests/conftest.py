"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake of the test's own."""
    return Lake(str(tmp_path / "lake"))
