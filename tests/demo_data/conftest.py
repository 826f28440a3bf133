"""One default set of miniatures for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.demo_data.write import WrittenDemoSource, write_demo_sources


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenDemoSource]:
    raw: Path = tmp_path_factory.mktemp("raw")
    return {written.slug: written for written in write_demo_sources(raw)}
