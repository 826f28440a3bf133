"""The ways in which published files differ from their description are in the demo data of their sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mvl_assets.config.catalog import load_catalog
from mvl_assets.demo_data.drawings.drawing import Drawing
from mvl_assets.demo_data.encode import encode_drawing
from mvl_assets.demo_data.rows import RawFile, RawRow, apply_fault
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.media.image import ImageError, inspect_image
from mvl_assets.readers.files import NON_DATA_FILES
from mvl_assets.readers.registry import get_reader
from mvl_assets.readers.sample import Sample


def folder(root: Path, slug: str) -> Path:
    return write_demo_sources(root, [slug], n_rows=12)[0].source_dir


def samples(root: Path, slug: str) -> list[Sample]:
    source = load_catalog()[slug]
    return [row for row in get_reader(source.format)(source, root / slug) if isinstance(row, Sample)]


def rows_of_parquet(root: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(root.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_turns_carry_the_keys_of_both_styles_with_nulls(tmp_path: Path) -> None:
    turns = [turn for row in rows_of_parquet(folder(tmp_path, "hme100k")) for turn in row["conversations"]]
    assert all(set(turn) == {"from", "value", "role", "content"} for turn in turns)
    assert {turn["from"] is None for turn in turns} == {turn["role"] is None for turn in turns} == {True, False}
    assert all((turn["from"] is None) != (turn["role"] is None) for turn in turns)


def test_both_key_styles_occur(tmp_path: Path) -> None:
    styles = set()
    for slug in ("iiit5k", "textocr_cleaned"):
        styles |= {tuple(turn) for row in rows_of_parquet(folder(tmp_path, slug)) for turn in row["conversations"]}
    assert styles == {("from", "value"), ("role", "content")}


def test_a_svit_file_has_more_fields_in_the_turns_of_some_rows(tmp_path: Path) -> None:
    rows = json.loads((folder(tmp_path, "svit_core") / "svit_core.json").read_text(encoding="utf-8"))
    keys = {tuple(turn) for row in rows for turn in row["conversations"]}
    assert keys == {("from", "value"), ("from", "value", "markdown", "text")}


@pytest.mark.parametrize("slug", ["ureader_chart", "pathvqa"])
def test_turns_name_their_data_source(slug: str, tmp_path: Path) -> None:
    (path,) = (p for p in folder(tmp_path, slug).glob("*.json*") if p.name not in NON_DATA_FILES)
    assert path.read_text(encoding="utf-8").count('"data_source"') >= 12
    assert len(samples(tmp_path, slug)) >= 10


def test_integer_ids_become_native_ids(tmp_path: Path) -> None:
    rows = json.loads((folder(tmp_path, "orca") / "orca.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in rows] == list(range(12))
    assert {sample.native_id for sample in samples(tmp_path, "orca")} <= {str(number) for number in range(12)}


def test_names_outside_ascii_are_escaped_on_disk_and_found(tmp_path: Path) -> None:
    root = folder(tmp_path, "vision_flan_filtered")
    names = [path.name for path in root.rglob("images/**/*") if path.is_file()]
    assert names and all(name.isascii() and "#U" in name for name in names)
    asked = {row["image"]["path"] for row in rows_of_parquet(root)}
    assert not any(path.isascii() for path in asked)
    result = samples(tmp_path, "vision_flan_filtered")
    assert len(result) >= 10 and all(image.path is not None for s in result for image in s.images)


def test_cambrian_rows_without_an_image_are_text(tmp_path: Path) -> None:
    folder(tmp_path, "idefics375k")
    assert {len(sample.images) for sample in samples(tmp_path, "idefics375k")} == {0, 1}


def test_stories_have_one_marker_per_image(tmp_path: Path) -> None:
    folder(tmp_path, "vist")
    result = samples(tmp_path, "vist")
    assert {len(sample.images) for sample in result} <= {3, 4, 5} and len(result) >= 10
    assert all(sum(t.value.count("<image>") for t in sample.turns) == len(sample.images) for sample in result)


def test_chinese_turns_arrive_whole(tmp_path: Path) -> None:
    rows = json.loads((folder(tmp_path, "llava_zh") / "llava_zh.json").read_text(encoding="utf-8"))
    written = {row["id"]: [turn["value"] for turn in row["conversations"]] for row in rows}
    for sample in samples(tmp_path, "llava_zh"):
        assert [turn.value for turn in sample.turns] == written[sample.native_id or ""]
        assert "图" in sample.turns[0].value


def test_plotqa_images_come_from_their_own_split(tmp_path: Path) -> None:
    root = folder(tmp_path, "plotqa")
    for sample in samples(tmp_path, "plotqa"):
        (image,) = sample.images
        assert image.path is not None and image.path.parent.parent == (root / sample.file).parent


def test_sherlock_images_are_found_by_the_last_part_of_their_url(tmp_path: Path) -> None:
    root = folder(tmp_path, "sherlock")
    result = {str(p.path.relative_to(root).parts[0]) for s in samples(tmp_path, "sherlock") for p in s.images if p.path}
    assert result == {"VG_100K", "vcr1images"}


@pytest.mark.parametrize("style", ["png", "palette", "jpeg"])
def test_truncating_damages_even_a_small_image(style: str) -> None:
    drawing = Drawing(Image.new("RGB", (40, 30), (90, 30, 200)), (), "")
    suffix, data = encode_drawing(drawing, style)
    (cut,) = apply_fault(RawRow("k", (), (RawFile(f"a{suffix}", data),)), "truncated_image").images
    with pytest.raises(ImageError) as result:
        inspect_image(cut.data or b"")
    assert result.value.code == "truncated_image"
