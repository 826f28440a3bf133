"""One default set of miniatures for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.demo_data.write import Written, write_miniatures


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    raw: Path = tmp_path_factory.mktemp("raw")
    return {written.slug: written for written in write_miniatures(raw)}
