"""Every source of the catalog has demo data in its format, and reading and ingest find what its marker says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.recipes import RECIPES, same_formats
from mvl_assets.demo_data.write import WrittenDemoSource, iter_written_demo_sources
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.readers.registry import get_reader
from tests.demo_data.verdicts import verdict

ROWS = 12


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenDemoSource]:
    """Small demo data of every source that has a recipe."""
    return {done.slug: done for done in iter_written_demo_sources(tmp_path_factory.mktemp("raw"), RECIPES, ROWS)}


def broken_in(written: WrittenDemoSource) -> dict[str, int]:
    """The broken rows by error class, as the marker has them."""
    marker = json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    result: dict[str, int] = marker["rejects"]
    return result


def test_every_source_of_the_catalog_has_a_recipe_in_its_format() -> None:
    catalog = load_catalog()
    missing, undeclared = sorted(set(catalog) - set(RECIPES)), sorted(set(RECIPES) - set(catalog))
    assert missing == [], f"these sources have no demo data: {', '.join(missing)}"
    assert undeclared == [], f"these recipes are for no declared source: {', '.join(undeclared)}"
    other = {slug: LAYOUTS[recipe.layout].format for slug, recipe in RECIPES.items()}
    assert {s: f for s, f in other.items() if catalog[s].format != f} == {}, "written in another format than declared"


@pytest.mark.parametrize("slug", sorted(RECIPES))
def test_every_row_is_read_with_the_verdict_of_its_marker(slug: str, small: dict[str, WrittenDemoSource]) -> None:
    written = small[slug]
    result = Counter(verdict(row) for row in get_reader(written.format)(load_catalog()[slug], written.source_dir))
    assert result == Counter({"good": written.n_good_rows, **broken_in(written)})
    assert written.n_good_rows + written.n_rejects == ROWS


@pytest.mark.parametrize("per_format", [1, pytest.param(None, marks=pytest.mark.soak)])
def test_one_lake_takes_all_sources_and_counts_what_was_written(
    small: dict[str, WrittenDemoSource], tmp_path: Path, per_format: int | None
) -> None:
    by_format: dict[str, list[str]] = {}
    for slug, written in small.items():
        by_format.setdefault(written.format, []).append(slug)
    taken = {slug: small[slug] for slugs in by_format.values() for slug in slugs[:per_format]}
    lake = Lake(str(tmp_path))
    wrong = {}
    for slug, written in taken.items():
        result = ingest_source(lake, load_catalog()[slug], written.source_dir, run_id="all")
        counts = (result.n_rows, result.n_new, dict(result.reject_counts))
        if counts != (ROWS, written.n_good_rows, broken_in(written)):
            wrong[slug] = counts
    assert wrong == {}
    assert lake.get_table("samples").count() == sum(written.n_good_rows for written in taken.values())


def test_few_rows_of_all_sources_hold_every_fault_their_formats_can_have(small: dict[str, WrittenDemoSource]) -> None:
    result = {kind for slug in small for kind in broken_in(small[slug])}
    assert {fault for recipe in same_formats.RECIPES for fault in recipe.faults} - result == set()


def test_all_demo_data_is_small(small: dict[str, WrittenDemoSource]) -> None:
    files = [path for written in small.values() for path in written.source_dir.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 45_000_000
