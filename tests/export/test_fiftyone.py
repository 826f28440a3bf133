"""Judged pairs in the form that FiftyOne imports.

FiftyOne needs MongoDB and is not among our packages: its own importer (1.22.1) has read such a folder elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from mvl_assets.common.digest import compute_digest
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.fiftyone import export_fiftyone
from mvl_assets.export.review import iter_pairs
from mvl_assets.export.stale_exports import iter_stale_exports
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN
from tests.export.small_lake import build_rewrite, build_verdict, fill_judged_lake
from tests.lake.rows import category_row, put, put_samples, sample


def test_samples_have_the_pairs_and_their_images(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    folder = tmp_path / "out"
    result, n_left_out = export_fiftyone(lake, ExportFolder(str(folder)), ["chart"])
    samples = json.loads((folder / "samples.json").read_text("utf-8"))["samples"]
    pairs = list(iter_pairs(lake))
    assert (result.rows, result.images, n_left_out, len(samples)) == (4, 4, 0, len(pairs))
    for read, pair in zip(samples, pairs, strict=True):
        data = (folder / read["filepath"]).read_bytes()
        assert [data] == pair.pop("images") and [compute_digest(data)] == pair.pop("image_ids")
        assert read["rewrite_id"] == pair.pop("id")
        assert {name: read.get(name) for name in pair} == pair
        assert read["metadata"] | {"width": 240, "mime_type": "image/png"} == read["metadata"]
        outcome = "kept" if pair["keep"] else "judge_no"
        assert read["verdict"] == {"_cls": "Classification", "label": outcome, "confidence": pair["p_yes"]}
    # With a version, FiftyOne would take the folder for documents of its own database.
    assert "version" not in json.loads((folder / "metadata.json").read_text("utf-8"))


def test_pairs_without_an_image_are_left_out_and_counted(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    rows = [sample("told", 0, question="Say <b>hello</b>"), sample("told", 1, question="Again")]
    put_samples(lake, "told", rows)
    put(lake, "category/ocr", CATEGORY, [category_row(row, "ocr") for row in rows], "told")
    rewrites = [build_rewrite(row, n) | {"category": "ocr"} for n, row in enumerate(rows)]
    put(lake, "rewritten/ocr", REWRITTEN, rewrites, "told")
    put(lake, "judged/ocr", JUDGED, [build_verdict(row, keep=True) | {"category": "ocr"} for row in rewrites], "told")
    folder = ExportFolder(str(tmp_path / "out"))
    result, n_left_out = export_fiftyone(lake, folder, ["chart", "ocr"])
    assert (result.rows, n_left_out) == (4, 2)
    empty, n_left_out = export_fiftyone(lake, folder, ["ocr"])
    assert (empty.rows, n_left_out) == (0, 2)
    assert json.loads((tmp_path / "out" / "samples.json").read_text("utf-8")) == {"samples": []}


def test_a_purge_finds_samples_and_images(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    export_fiftyone(lake, ExportFolder(str(tmp_path / "export" / "fiftyone")), ["chart"])
    (image_id,) = next(iter(iter_pairs(lake)))["image_ids"]
    found = set(iter_stale_exports(ExportFolder(str(tmp_path / "export")), [], IdSet([[image_id]])))
    assert found == {"fiftyone/samples.json", f"fiftyone/images/{image_id[:3]}/{image_id}.png"}
    found = set(iter_stale_exports(ExportFolder(str(tmp_path / "export")), ["single_image"], IdSet([[]])))
    assert found == {"fiftyone/samples.json"}
