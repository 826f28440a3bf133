"""Demo data of visual question answering is read with exactly the verdicts their markers give."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.diagrams import draw_diagram
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.recipes.questions import RECIPES
from mvl_assets.demo_data.recipes.recipe import IMAGE_FAULTS, DemoRecipe
from mvl_assets.demo_data.write import WrittenDemoSource, write_demo_sources
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.readers.formats import science_qa
from mvl_assets.readers.registry import get_reader
from mvl_assets.readers.sample import Sample
from tests.demo_data.verdicts import verdict

SLUGS = tuple(recipe.slug for recipe in RECIPES)


@pytest.fixture(scope="module")
def question_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenDemoSource]:
    raw = tmp_path_factory.mktemp("raw")
    return {written.slug: written for written in write_demo_sources(raw, SLUGS)}


@pytest.mark.parametrize("slug", SLUGS)
def test_every_row_is_read_with_the_verdict_of_the_marker_file(
    slug: str, question_sources: dict[str, WrittenDemoSource]
) -> None:
    written, source = question_sources[slug], load_catalog()[slug]
    assert source.format == written.format
    rows = list(get_reader(source.format)(source, written.source_dir))
    marker = json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    assert Counter(map(verdict, rows)) == Counter({"good": written.n_good_rows, **marker["rejects"]})


@pytest.mark.parametrize("slug", SLUGS)
def test_what_was_drawn_is_what_is_asked_and_answered(
    slug: str, question_sources: dict[str, WrittenDemoSource]
) -> None:
    source = load_catalog()[slug]
    drawn = {turn for row in next(r for r in RECIPES if r.slug == slug).build_rows(48, 0) for turn in row.turns}
    for row in get_reader(source.format)(source, question_sources[slug].source_dir):
        if isinstance(row, Sample):
            values = [turn.value.removeprefix("<image>\n") for turn in row.turns]
            assert set(zip(values[::2], values[1::2], strict=True)) <= drawn


def test_ingest_counts_a_joined_source_and_finds_nothing_new_the_second_time(
    question_sources: dict[str, WrittenDemoSource], tmp_path: Path
) -> None:
    written, source = question_sources["vqav2"], load_catalog()["vqav2"]
    marker = json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    lake = Lake(str(tmp_path))
    first = ingest_source(lake, source, written.source_dir, run_id="first")
    assert (first.n_rows, first.n_new, first.reject_counts) == (48, written.n_good_rows, marker["rejects"])
    second = ingest_source(lake, source, written.source_dir, run_id="second")
    assert (second.n_new, second.n_changed, second.n_withdrawn, second.n_new_images) == (0, 0, 0, 0)


def science(rng: Random, index: int, part: int) -> c.RowContent:
    """A question about a diagram with its choices; every third one is asked without the picture."""
    drawing = draw_diagram(rng)
    pair = next(pair for pair in drawing.qa_pairs if pair.choices)
    fields = {
        "choices": list(pair.choices),
        "answer": pair.choices.index(pair.answer),
        "hint": "",
        "lecture": "A diagram shows how things hang together.",
        "solution": pair.rationale,
    }
    return c.RowContent(((pair.question, pair.answer),), () if index % 3 == 1 else (drawing,), fields=fields)


def test_science_qa_is_written_and_read_though_no_source_has_it_as_its_first_format(tmp_path: Path) -> None:
    rows = DemoRecipe(
        "scienceqa", "science_qa", science, ("bad_answer",) * 3, row_id_template="{number}", png_only=True
    ).build_rows(24, 0)
    LAYOUTS["science_qa"].write_source(tmp_path, "scienceqa", rows)
    spec = load_catalog()["scienceqa_nona_context"]
    assert "science_qa" in spec.alternates
    result = list(science_qa.read(spec, tmp_path))
    assert Counter(map(verdict, result)) == Counter(good=21, bad_answer=3)
    for row, read in zip(rows, result, strict=True):
        if isinstance(read, Sample):
            assert read.turns[-1].value.endswith(f". {row.turns[0][1]}")
            assert [p.read() for p in read.images] == [p.data for p in row.images]


def test_an_image_fault_damages_one_image_only() -> None:
    assert all(set(IMAGE_FAULTS) < set(recipe.faults) for recipe in RECIPES)
