"""A mixture as LLaVA training JSON, in both layouts."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export import llava_json, llava_shards
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.llava_entry import build_entry
from mvl_assets.export.llava_json import ExportResult, export_stage
from mvl_assets.export.stale_exports import iter_stale_exports
from mvl_assets.export.verify import check_export
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from tests.training import tiny_model as small

STAGE = "single_image"


def build_row(question: str, image_ids: list[str], video: dict | None = None) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "The tag <video> ends it."}]
    return {"row_id": "r1", "source": "s", "image_ids": image_ids, "video": video, "conversations": turns}


def test_entry_names_one_image_as_a_string_and_several_as_a_list() -> None:
    paths = {"a": "images/a.png", "b": "images/b.png"}
    assert build_entry(build_row("<image>?", ["a"]), paths)["image"] == "images/a.png"
    assert build_entry(build_row("<image><image>?", ["a", "b"]), paths)["image"] == ["images/a.png", "images/b.png"]
    assert "image" not in build_entry(build_row("?", []), paths)


def test_entry_of_a_video_has_a_marker_per_frame_in_the_question_only() -> None:
    row = build_row("<video>\nWhat is the tag <video>?", ["a", "b"], {"name": "v.mp4", "seconds": [0.0, 1.0]})
    human, gpt = build_entry(row, {"a": "1.jpg", "b": "2.jpg"})["conversations"]
    assert human["value"] == "<image><image>\nWhat is the tag <video>?"
    assert gpt["value"] == "The tag <video> ends it."


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return small.fill_lake(tmp_path / "lake", small.draw_shape_samples(11), frames=2)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llava_shards, "PART_ROWS", 5)
    monkeypatch.setattr(llava_json, "CHUNK_ROWS", 5)


def export_shards(lake: Lake, folder: Path) -> ExportResult:
    return export_stage(lake, STAGE, ExportFolder(str(folder)), layout="shards", executor=ProcessExecutor(1))


def read_shards(parts: Path, unpacked: Path) -> list[dict]:
    """The entries of all parts; their images are unpacked."""
    for tar in sorted(parts.glob("*.tar")):
        with tarfile.open(tar) as archive:
            archive.extractall(unpacked, filter="data")
    return [json.loads(line) for path in sorted(parts.glob("*.jsonl")) for line in path.open(encoding="utf-8")]


def test_both_layouts_hold_the_same_entries_and_images(lake: Lake, tmp_path: Path) -> None:
    files = export_stage(lake, STAGE, ExportFolder(str(tmp_path / "files")))
    shards = export_shards(lake, tmp_path / "shards")
    assert (files.name, shards.name) == (f"{STAGE}.json", STAGE)
    entries = json.loads((tmp_path / "files" / files.name).read_text(encoding="utf-8"))
    assert read_shards(tmp_path / "shards" / STAGE, tmp_path / "unpacked") == entries
    assert len(entries) == files.rows == shards.rows == 12
    images = {
        name
        for entry in entries
        for name in ([entry.get("image", [])] if isinstance(entry.get("image"), str) else entry.get("image", []))
    }
    for folder in (tmp_path / "files", tmp_path / "unpacked"):
        stored = {p.relative_to(folder).as_posix(): p for p in (folder / "images").rglob("*.png")}
        assert stored.keys() == images
        assert all(compute_digest(path.read_bytes()) == path.stem for path in stored.values())
    assert len(list((tmp_path / "shards" / STAGE).glob("*.tar"))) == 3


def test_what_was_written_is_read_again_and_faults_are_named(lake: Lake, tmp_path: Path) -> None:
    folder = ExportFolder(str(tmp_path))
    shards = export_shards(lake, tmp_path)
    assert check_export(folder, shards) == []
    part, *_ = sorted((tmp_path / STAGE).glob("*.jsonl"))
    part.with_suffix(".tar").unlink()
    part.write_text("", encoding="utf-8")
    assert check_export(ExportFolder(str(tmp_path)), shards) == [
        f"{STAGE}/{part.stem}.tar is missing",
        f"{STAGE} has 7 entries, the mixture 12 rows",
    ]

    files = export_stage(lake, STAGE, folder)
    assert check_export(folder, files) == []
    path = tmp_path / files.name
    entries = json.loads(path.read_text(encoding="utf-8"))
    shown = next(entry for entry in entries if isinstance(entry.get("image"), str))
    (tmp_path / shown["image"]).unlink()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<image>", "", 1), encoding="utf-8")
    problems = check_export(folder, files)
    assert f"{files.name}: {shown['image']} is missing" in problems
    assert any("has 0 markers for 1 images" in problem for problem in problems) and len(problems) == 2


def test_the_digest_is_that_of_all_lines(lake: Lake, tmp_path: Path) -> None:
    files = export_stage(lake, STAGE, ExportFolder(str(tmp_path)))
    lines = (tmp_path / files.name).read_text(encoding="utf-8").splitlines()[1:-1]
    assert files.digest == compute_digest(*(compute_digest(line.removesuffix(",")) for line in lines))


def test_parts_that_are_there_are_kept_and_what_killed_or_older_exports_left_goes(lake: Lake, tmp_path: Path) -> None:
    first = export_shards(lake, tmp_path)
    parts = tmp_path / STAGE
    kept, lost, half = sorted(parts.glob("*.jsonl"))
    lost.unlink()
    half.unlink()
    half.with_suffix(".tar").unlink()
    (parts / f".{half.stem}.tar.tmp").write_bytes(b"half")
    (parts / "part-00000-0123456789abcdef.jsonl").write_text("older")
    (tmp_path / f"{STAGE}.json").write_text("[]")
    written_at = kept.stat().st_mtime_ns
    again = export_shards(lake, tmp_path)
    assert (again.digest, kept.stat().st_mtime_ns) == (first.digest, written_at)
    assert sorted(p.name for p in parts.iterdir()) == sorted(
        f"{p.stem}{suffix}" for p in (kept, lost, half) for suffix in (".jsonl", ".tar")
    )
    assert not (tmp_path / f"{STAGE}.json").exists()


def test_an_image_that_is_gone_is_named(lake: Lake, tmp_path: Path) -> None:
    gone = next(lake.images.table.iter_rows(["image_id"]))["image_id"]
    lake.images.table.delete(f"image_id = '{gone}'")
    for layout in ("files", "shards"):
        with pytest.raises(LakeError, match=f"image {gone} is not in the lake"):
            export_stage(lake, STAGE, ExportFolder(str(tmp_path)), layout=layout, executor=ProcessExecutor(1))


def test_a_removed_image_inside_a_tar_makes_the_export_stale(lake: Lake, tmp_path: Path) -> None:
    export_shards(lake, tmp_path / "export" / "llava_json")
    removed = next(lake.images.table.iter_rows(["image_id"]))["image_id"]
    stale = list(iter_stale_exports(ExportFolder(str(tmp_path / "export")), set(), IdSet([[removed]])))
    assert len(stale) == 6
    assert not list(iter_stale_exports(ExportFolder(str(tmp_path / "export")), set(), IdSet([["0" * 32]])))
