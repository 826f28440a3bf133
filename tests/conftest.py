"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake of the test's own."""
    return Lake(str(tmp_path / "lake"))
