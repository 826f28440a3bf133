"""The category table holds the samples in use, with the verdict that standardising will come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import SourceError
from mvl_assets.ingest.categorise import categorise_source
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.lake_queries.views import iter_current_samples
from mvl_assets.media.image import standardise_image
from tests.lake.rows import put_samples, sample
from tests.raw_files import make_image, put, put_json, source, talk

SPEC = source("llava_json", category="chart", group="B", family="chart")
SIZES = {"good": (300, 300), "small": (100, 100), "long": (2100, 240), "none": None}


def fill(lake: Lake, root: Path, names: list[str]) -> None:
    rows = []
    for name in names:
        size = SIZES[name]
        rows.append({"id": name, "conversations": [*talk("How?", "So."), *talk("Why?", "Thus.")]})
        if size is not None:
            put(root, f"{name}.png", make_image(len(name), size))
            rows[-1]["image"] = f"{name}.png"
    put_json(root, "rows.json", rows)
    ingest_source(lake, SPEC, root, run_id="r")


def table(lake: Lake) -> dict[str, dict[str, object]]:
    native = {s["sample_id"]: s["native_id"] for s in iter_current_samples(lake, SPEC.slug)}
    return {native[r["sample_id"]]: r for r in lake.get_table("category/chart").iter_rows()}


def test_category_row_of_a_sample_has_the_columns_of_later_stages(lake: Lake, tmp_path: Path) -> None:
    fill(lake, tmp_path / "raw", list(SIZES))
    report = categorise_source(lake, SPEC, run_id="r2")
    assert (report.n_rows, report.n_added) == (4, 4)
    row = table(lake)["good"]
    assert (row["group"], row["family"], row["category"], row["modality"]) == ("B", "chart", "chart", "single_image")
    assert (row["n_images"], row["n_turns"], row["run_id"]) == (1, 4, "r2")
    assert row["n_chars"] == len("<image>\nHow?So.Why?Thus.")
    assert (row["question_chars"], row["answer_chars"], row["n_tiles"]) == (6, 6, 2)
    assert table(lake)["none"]["modality"] == "text"


def test_image_action_is_what_standardising_does(lake: Lake, tmp_path: Path) -> None:
    fill(lake, tmp_path / "raw", list(SIZES))
    report = categorise_source(lake, SPEC, run_id="r2")
    verdicts = {name: row["image_action"] for name, row in table(lake).items()}
    assert verdicts == {"good": "as_is", "small": "resized", "long": "padded", "none": "as_is"}
    assert report.image_action_counts == {"as_is": 2, "resized": 1, "padded": 1}
    assert report.metadata["images_padded"] == 1
    for name, size in SIZES.items():
        if size is not None:
            changed = standardise_image(make_image(len(name), size)).size != size
            assert changed == (verdicts[name] != "as_is")


def test_neither_text_nor_images_are_read(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, tmp_path / "raw", list(SIZES))
    monkeypatch.setattr(Lake, "get_images", lambda *_: pytest.fail("images were read"))
    scan, read = TableReader.scan, set()

    def note_columns(self: TableReader, columns: Sequence[str], *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        read.update(columns if self.spec.name == "samples" else ())
        return scan(self, columns, *args, **options)

    monkeypatch.setattr(TableReader, "scan", note_columns)
    assert categorise_source(lake, SPEC, run_id="r").n_rows == len(SIZES)
    assert "n_chars" in read and "conversations" not in read


def test_rows_with_several_images_or_a_video_have_the_strongest_action(lake: Lake) -> None:
    def image(number: int, width: int, height: int) -> ImageRow:
        return ImageRow(compute_digest(number), b"", "PNG", width, height, 1, "RGB", None)

    good, small, long = image(0, 300, 300), image(1, 100, 100), image(2, 2100, 240)
    clip = {"name": "clip", "seconds": [0.0, 1.0]}
    rows = {
        "text": sample(SPEC.slug, 0),
        "two": sample(SPEC.slug, 1, pictures=[good, small]),
        "three": sample(SPEC.slug, 2, pictures=[long, small, good]),
        "video": sample(SPEC.slug, 3, pictures=[good, good], video=clip),
        "single": sample(SPEC.slug, 4, pictures=[good], revision=2),
    }
    old = sample(SPEC.slug, 4, pictures=[small, long])
    put_samples(lake, SPEC.slug, [old, *rows.values()])
    categorise_source(lake, SPEC, run_id="r")
    by_version = {r["version_id"]: r for r in lake.get_table("category/chart").iter_rows()}
    result = {name: by_version.pop(row["version_id"]) for name, row in rows.items()}
    assert not by_version
    assert {n: (r["modality"], r["image_action"], r["n_images"]) for n, r in result.items()} == {
        "text": ("text", "as_is", 0),
        "two": ("multi_image", "resized", 2),
        "three": ("multi_image", "padded", 3),
        "video": ("video", "as_is", 2),
        "single": ("single_image", "as_is", 1),
    }
    assert result["three"]["image_group_id"] == long.image_id
    assert result["text"]["image_group_id"] == rows["text"]["sample_id"]
    assert {n: r["holdout_hash"] for n, r in result.items()} == {n: r["holdout_hash"] for n, r in rows.items()}


def test_categorising_again_commits_nothing_and_drops_withdrawn_samples(lake: Lake, tmp_path: Path) -> None:
    fill(lake, tmp_path / "raw", ["good", "small"])
    first = categorise_source(lake, SPEC, run_id="r2")
    version = lake.get_table("category/chart").version
    assert categorise_source(lake, SPEC, run_id="r3").data_version == first.data_version
    assert lake.get_table("category/chart").version == version
    fill(lake, tmp_path / "raw", ["good"])
    report = categorise_source(lake, SPEC, run_id="r4")
    assert (report.n_rows, report.n_removed) == (1, 1)
    assert set(table(lake)) == {"good"}


def test_source_of_group_c_is_refused(lake: Lake) -> None:
    spec = SPEC.model_copy(update={"group": "C", "reason": "answers of one word"})
    with pytest.raises(SourceError, match="answers of one word"):
        categorise_source(lake, spec, run_id="r")
    assert not lake.get_table("category/chart").exists()
