"""Miniatures of the formats from the web: read with exactly the verdicts that their markers give."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data import contents
from mvl_assets.demo_data.drawings.webpages import draw_web_page
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.recipes import web
from mvl_assets.demo_data.recipes.recipe import DemoRecipe
from mvl_assets.demo_data.write import WrittenDemoSource, write_demo_sources
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.readers.registry import get_key_reader, get_reader
from tests.demo_data.verdicts import verdict
from tests.raw_files import source

SLUGS = [recipe.slug for recipe in web.RECIPES]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenDemoSource]:
    return {one.slug: one for one in write_demo_sources(tmp_path_factory.mktemp("web"), SLUGS)}


@pytest.mark.parametrize("slug", SLUGS)
def test_every_row_is_read_with_the_verdict_of_the_marker_file(
    slug: str, written: dict[str, WrittenDemoSource]
) -> None:
    one, spec = written[slug], load_catalog()[slug]
    marker = json.loads((one.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    rows = list(get_reader(spec.format)(spec, one.source_dir))
    assert spec.format == one.format
    assert Counter(map(verdict, rows)) == Counter({"good": one.n_good_rows, **marker["rejects"]})
    assert sum(marker["rejects"].values()) == len(next(r for r in web.RECIPES if r.slug == slug).faults)
    assert list(get_key_reader(spec.format)(spec, one.source_dir)) == [(r.file, r.position, r.native_id) for r in rows]


def test_the_same_arguments_give_the_same_files(written: dict[str, WrittenDemoSource], tmp_path: Path) -> None:
    for again in write_demo_sources(tmp_path, SLUGS):
        first = written[again.slug].source_dir
        names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
        assert names == sorted(
            path.relative_to(again.source_dir) for path in again.source_dir.rglob("*") if path.is_file()
        )
        assert all((first / name).read_bytes() == (again.source_dir / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("layout", "maker", "faults", "bad"),
    [
        ("finqa", contents.build_word_problem_row, ("no_answer",), {"no_answer": 1}),
        (
            "finevision",
            contents.make_qa_builder(contents.draw_everyday_image, 2, True),
            ("no_turns", "truncated_image", "missing_image"),
            {"no_turns": 1, "truncated_image": 1, "missing_image": 1},
        ),
    ],
)
def test_layouts_that_no_source_has_first_are_read_as_they_were_written(
    layout: str, maker: contents.ContentBuilder, faults: tuple[str, ...], bad: dict[str, int], tmp_path: Path
) -> None:
    rows = DemoRecipe("demo", layout, maker, faults).build_rows(18, seed=0)
    LAYOUTS[layout].write_source(tmp_path, "demo", rows)
    spec = source(LAYOUTS[layout].format) if layout == "finqa" else source("cauldron_parquet")
    read = list(get_reader(LAYOUTS[layout].format)(spec, tmp_path))
    assert Counter(map(verdict, read)) == Counter({"good": 18 - len(faults), **bad})


def test_a_drawn_page_says_what_its_html_says() -> None:
    for seed in range(6):
        drawing, html = draw_web_page(Random(seed))
        assert html.startswith("<!DOCTYPE html>") and html.rstrip().endswith("</html>")
        assert drawing.caption.removeprefix("The web page of ").rstrip(".").replace("&", "&amp;") in html
