"""One default set of demo data for all tests of this package."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.demo_data.write import WrittenDemoSource, write_demo_sources


@pytest.fixture(scope="session")
def demo_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenDemoSource]:
    raw: Path = tmp_path_factory.mktemp("raw")
    return {written.slug: written for written in write_demo_sources(raw)}
