"""Miniatures that say what is where: read with the verdicts written down, and true in the pixels."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.drawings.signboards import BOARD_COLOURS, TextLine, build_signboard_wall
from mvl_assets.demo_data.drawings.strokes import CHINESE_WORDS, STROKES
from mvl_assets.demo_data.recipes.regions import RECIPES
from mvl_assets.demo_data.write import WrittenDemoSource, write_demo_sources
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.media.drawing import COLOURS
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.readers.format import RowKey
from mvl_assets.readers.registry import get_key_reader, get_reader
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.demo_data.verdicts import verdict

SLUGS = tuple(recipe.slug for recipe in RECIPES)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenDemoSource]:
    return {one.slug: one for one in write_demo_sources(tmp_path_factory.mktemp("regions"), SLUGS)}


def rows_of(one: WrittenDemoSource) -> list[Sample | RejectedRow]:
    return list(get_reader(one.format)(load_catalog()[one.slug], one.source_dir))


def test_every_source_of_these_formats_has_demo_data() -> None:
    formats = {"coco_instances", "visual_genome", "ref_coco", "localized_narratives", "icdar_text"}
    assert set(SLUGS) == {slug for slug, spec in load_catalog().items() if spec.format in formats}


@pytest.mark.parametrize("slug", SLUGS)
def test_every_row_is_read_with_the_verdict_of_the_marker_file(
    slug: str, written: dict[str, WrittenDemoSource]
) -> None:
    one, spec = written[slug], load_catalog()[slug]
    rows = rows_of(one)
    marker = json.loads((one.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    assert spec.format == one.format
    assert Counter(map(verdict, rows)) == Counter({"good": one.n_good_rows, **marker["rejects"]})
    assert list(get_key_reader(one.format)(spec, one.source_dir)) == [
        RowKey(r.file, r.position, r.native_id) for r in rows
    ]


@pytest.mark.parametrize("slug", SLUGS)
def test_the_same_seed_gives_the_same_bytes(slug: str, written: dict[str, WrittenDemoSource], tmp_path: Path) -> None:
    (again,) = write_demo_sources(tmp_path, [slug])
    one, other = (
        {path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*.*")}
        for folder in (written[slug].source_dir, again.source_dir)
    )
    assert one == other


@pytest.mark.parametrize("slug", ["mscoco", "refcoco", "rctw_17"])
def test_ingest_counts_all_written_rows_once(slug: str, written: dict[str, WrittenDemoSource], tmp_path: Path) -> None:
    one, lake = written[slug], Lake(str(tmp_path))
    marker = json.loads((one.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    first = ingest_source(lake, load_catalog()[slug], one.source_dir, run_id="first")
    assert (first.n_new, first.reject_counts) == (one.n_good_rows, marker["rejects"])
    second = ingest_source(lake, load_catalog()[slug], one.source_dir, run_id="second")
    assert (second.n_new, second.n_changed, second.n_withdrawn, second.n_new_images) == (0, 0, 0, 0)


BOX = re.compile(r"\[([0-9., ]+)\]")


def pixels(row: Sample) -> np.ndarray:
    path = row.images[0].path
    assert path is not None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def is_framed(image: np.ndarray, box: str, colour: str | None = None) -> bool:
    """Whether the box is the smallest around the patch in it, and its middle has the colour (as JPEG keeps it)."""
    high, wide = image.shape[:2]
    x1, y1, x2, y2 = (float(share) * side for share, side in zip(box.split(","), (wide, high, wide, high), strict=True))
    near = image[max(0, round(y1) - 6) : round(y2) + 7, max(0, round(x1) - 6) : round(x2) + 7]
    ys, xs = np.nonzero(np.abs(near - image[0, 0]).sum(axis=2) > 60)
    result = np.array([xs.min(), ys.min(), xs.max(), ys.max()]) + np.tile(
        [max(0, round(x1) - 6), max(0, round(y1) - 6)], 2
    )
    middle = image[round((y1 + y2) / 2), round((x1 + x2) / 2)]
    right_colour = colour is None or np.abs(middle - COLOURS[colour]).sum() < 40
    return bool(np.abs(result - [x1, y1, x2, y2]).max() <= 3 and right_colour)


@pytest.mark.parametrize("slug", ["visualgenome", "refcoco"])
def test_boxes_are_where_the_shapes_are_and_names_have_their_colours(
    slug: str, written: dict[str, WrittenDemoSource]
) -> None:
    checked = 0
    for row in rows_of(written[slug]):
        if verdict(row) != "good" or not isinstance(row, Sample):
            continue
        if slug == "refcoco":
            told = [f"{row.turns[0].value.rsplit(': ', 1)[1]} {row.turns[1].value}"]
        elif row.file == "relationships.json":
            told = re.findall(r"\w+ \w+ \[[^]]*\]", row.turns[1].value)
        else:
            told = row.turns[1].value.splitlines() if row.file != "question_answers.json" else []
        for line in told:
            (colour,) = set(line.replace(":", " ").split()) & set(COLOURS)
            for box in BOX.findall(line):
                assert is_framed(pixels(row), box, colour), (row.native_id, line)
                checked += 1
    assert checked >= 40


def test_coco_boxes_frame_as_many_shapes_as_there_are(written: dict[str, WrittenDemoSource]) -> None:
    crowds = 0
    for row in rows_of(written["mscoco"]):
        path = row.images[0].path if isinstance(row, Sample) else None
        # Pictures that are stored turned have the boxes of the upright picture.
        if verdict(row) != "good" or not isinstance(row, Sample) or path is None or Image.open(path).getexif():
            continue
        for line in row.turns[1].value.splitlines():
            if "(group)" in line:
                crowds += 1
            else:
                assert all(is_framed(pixels(row), box) for box in BOX.findall(line)), (row.native_id, line)
    assert crowds >= 5


@pytest.mark.parametrize("seed", range(8))
def test_the_corners_of_a_board_are_where_its_colour_ends(seed: int) -> None:
    content = build_signboard_wall(Random(seed), seed, 0)
    image = np.asarray(content.drawings[0].image).astype(int)
    lines: list[TextLine] = content.fields["text_lines"]  # type: ignore[assignment]
    for line in lines:
        middle = np.mean(line.corners, axis=0)
        for x, y in line.corners:
            inside = np.array([x, y]) + 5 * np.sign(middle - [x, y])
            outside = np.array([x, y]) - 5 * np.sign(middle - [x, y])
            near, far = (image[int(at[1]), int(at[0])] for at in (inside, outside))
            assert any(np.abs(near - back).sum() < 30 for back, _ in BOARD_COLOURS), (line, near)
            assert np.abs(far - image[0, 0]).sum() < 30, (line, far)


def test_every_character_can_be_drawn_and_looks_like_no_other() -> None:
    assert set("".join(CHINESE_WORDS)) <= set(STROKES)
    assert len(set(STROKES.values())) == len(STROKES)
