"""Mixtures in all formats: what is kept, made again, removed, and that a killed export ends with the same files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export import export_stage as export_module
from mvl_assets.export import json_files, shard_plan
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, ExportResult, export_stage
from mvl_assets.export.formats.registry import FORMATS, get_format
from mvl_assets.export.stale_exports import iter_stale_exports
from mvl_assets.export.verify import check_export
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from tests.export.small_lake import STAGE, fill_judged_lake
from tests.patience import PATIENCE_S

PROJECT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export import export_stage, row_reader, shard_plan
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.formats.registry import get_format
from mvl_assets.lake.lake import Lake

shard_plan.PART_ROWS = export_stage.PART_ROWS = 2
format_, n_groups = get_format(sys.argv[3]), 0
module = sys.modules[[c for c in type(format_).__mro__ if "write_shard" in vars(c)][0].__module__]
module = module if hasattr(module, "iter_row_groups") else sys.modules["mvl_assets.export.formats.table_formats"]
read_groups = module.iter_row_groups

def iter_killed(*arguments):
    global n_groups
    for group in read_groups(*arguments):
        n_groups += 1
        yield group
        if n_groups == 3:
            os.kill(os.getpid(), signal.SIGKILL)

module.iter_row_groups = iter_killed
options = export_stage.ExportOptions(layout="shards", shard_bytes=1)
export_stage.export_stage(
    Lake(sys.argv[1]), "single_image", ExportFolder(sys.argv[2]), format_, options, ProcessExecutor(1)
)
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return fill_judged_lake(tmp_path / "lake")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_plan, "PART_ROWS", 2)
    monkeypatch.setattr(export_module, "PART_ROWS", 2)
    monkeypatch.setattr(json_files, "CHUNK_ROWS", 5)


def export_shards(lake: Lake, folder: Path, name: str = "llava_json", n_processes: int = 1) -> ExportResult:
    options = ExportOptions(layout="shards", shard_bytes=1)
    executor = ProcessExecutor(n_processes)
    return export_stage(lake, STAGE, ExportFolder(str(folder)), get_format(name), options, executor)


def digest_files(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder but Lance's, whose names are random."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lance" not in str(path) and "-fragments" not in str(path)
    }


def list_shards(folder: Path) -> list[str]:
    return sorted(path.name.partition(".")[0] for path in folder.rglob("train-*"))


def read_shards(folder: Path, unpacked: Path) -> list[dict]:
    """The entries of all shards; their images are unpacked."""
    for tar in sorted((folder / f"{STAGE}-images").glob("*.tar")):
        with tarfile.open(tar) as archive:
            archive.extractall(unpacked, filter="data")
    return [json.loads(line) for path in sorted((folder / STAGE).glob("*.jsonl")) for line in path.open()]


def test_both_layouts_of_json_hold_the_same_entries_and_images(lake: Lake, tmp_path: Path) -> None:
    files = export_stage(lake, STAGE, ExportFolder(str(tmp_path / "files")), get_format("llava_json"))
    shards = export_shards(lake, tmp_path / "shards", n_processes=2)
    assert (files.name, shards.name, shards.shards) == (f"{STAGE}.json", STAGE, 6)
    entries = json.loads((tmp_path / "files" / files.name).read_text(encoding="utf-8"))
    assert read_shards(tmp_path / "shards", tmp_path / "unpacked") == entries
    assert len(entries) == files.rows == shards.rows == 12
    images = {name for entry in entries for name in entry.get("image", [])}
    for folder in (tmp_path / "files", tmp_path / "unpacked"):
        stored = {path.relative_to(folder).as_posix(): path for path in (folder / "images").rglob("*.png")}
        assert stored.keys() == images
        assert all(compute_digest(path.read_bytes()) == path.stem for path in stored.values())


@pytest.mark.parametrize("name", ["parquet", "lance", "webdataset", "llama_factory"])
def test_a_killed_export_goes_on_and_ends_with_the_same_files(lake: Lake, tmp_path: Path, name: str) -> None:
    whole = export_shards(lake, tmp_path / "whole", name)
    command = [sys.executable, "-c", KILLED, lake.root, str(tmp_path / "killed"), name]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, "MVL_SCRATCH": str(tmp_path)}, timeout=PATIENCE_S)
    assert done.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("train-*") if path.is_file()}
    assert kept and list_shards(tmp_path / "killed") != list_shards(tmp_path / "whole")
    assert export_shards(lake, tmp_path / "killed", name) == whole
    assert list_shards(tmp_path / "killed") == list_shards(tmp_path / "whole")
    assert digest_files(tmp_path / "killed") == digest_files(tmp_path / "whole")
    complete = [path for path in kept if path.suffix != ".tar" or "-images" not in path.parent.name]
    assert complete and all(path.stat().st_mtime_ns == kept[path] for path in complete)


def test_a_changed_mixture_replaces_its_shards_and_what_is_not_of_the_export_goes(lake: Lake, tmp_path: Path) -> None:
    export_shards(lake, tmp_path)
    first = list_shards(tmp_path / STAGE)
    (tmp_path / STAGE / f".{first[0]}.jsonl.tmp").write_bytes(b"half")
    (tmp_path / f"{STAGE}.json").write_text("[]")
    lake.get_table("rewritten/chart").delete("true")
    lake.get_table(f"mixture/{STAGE}").delete("kind = 'rewritten'")
    assert export_shards(lake, tmp_path).rows == 10
    again = list_shards(tmp_path / STAGE)
    # Rows 1 and 5 were rewritten.
    assert [number for number, names in enumerate(zip(first, again, strict=True)) if len(set(names)) > 1] == [0, 2]
    assert not (tmp_path / f"{STAGE}.json").exists() and not list((tmp_path / STAGE).glob(".*"))


def test_what_was_written_is_read_again_and_faults_are_named(lake: Lake, tmp_path: Path) -> None:
    folder = ExportFolder(str(tmp_path))
    shards = export_shards(lake, tmp_path)
    assert check_export(folder, shards) == []
    first, *_ = sorted((tmp_path / STAGE).glob("*.jsonl"))
    (tmp_path / f"{STAGE}-images" / f"{first.stem}.tar").unlink()
    first.write_text("", encoding="utf-8")
    assert check_export(ExportFolder(str(tmp_path)), shards) == [
        f"{STAGE}-images/{first.stem}.tar is missing",
        f"{STAGE} has 10 entries, the mixture 12 rows",
    ]
    files = export_stage(lake, STAGE, folder, get_format("llava_json"))
    assert check_export(folder, files) == []
    path = tmp_path / files.name
    (image, *_) = json.loads(path.read_text(encoding="utf-8"))[0]["image"]
    (tmp_path / image).unlink()
    path.write_text(path.read_text(encoding="utf-8").replace("<image>", "", 1), encoding="utf-8")
    problems = check_export(folder, files)
    assert f"{files.name}: {image} is missing" in problems
    assert any("has 0 markers for 1 images" in problem for problem in problems) and len(problems) == 2


def test_shards_follow_the_bytes_of_images_and_the_number_of_rows() -> None:
    assert list(shard_plan.iter_shard_bounds([4, 4, 4, 9, 0, 1], 10)) == [(0, 2), (2, 3), (3, 6)]
    assert list(shard_plan.iter_shard_bounds([99, 1, 1], 10)) == [(0, 1), (1, 3)]
    assert list(shard_plan.iter_shard_bounds([], 10)) == []
    n_parts = shard_plan.SHARD_ROWS // shard_plan.PART_ROWS
    assert list(shard_plan.iter_shard_bounds([0] * (n_parts + 1), 10)) == [(0, n_parts), (n_parts, n_parts + 1)]


@pytest.mark.parametrize("name", ["parquet", "webdataset", "llava_json"])
def test_an_image_that_is_gone_is_named(lake: Lake, tmp_path: Path, name: str) -> None:
    gone = next(lake.images.table.iter_rows(["image_id"]))["image_id"]
    lake.images.table.delete(f"image_id = '{gone}'")
    for layout in ("files", "shards"):
        with pytest.raises(LakeError, match=f"image {gone} is not in the lake"):
            options = ExportOptions(layout=layout)
            export_stage(
                lake, STAGE, ExportFolder(str(tmp_path)), get_format(name), options, executor=ProcessExecutor(1)
            )


@pytest.mark.parametrize("name", FORMATS)
def test_a_removed_image_inside_a_shard_makes_the_export_stale(lake: Lake, tmp_path: Path, name: str) -> None:
    export_shards(lake, tmp_path / "export" / name, name)
    exports = ExportFolder(str(tmp_path / "export"))
    removed = next(lake.images.table.iter_rows(["image_id"]))["image_id"]
    stale = set(iter_stale_exports(exports, set(), IdSet([[removed]])))
    assert stale == set(exports.list_files()) - {f"{name}/dataset_info.json"}
    assert not list(iter_stale_exports(exports, set(), IdSet([["0" * 32]])))


def test_standard_images_are_within_the_bounds_and_lie_apart(lake: Lake, tmp_path: Path) -> None:
    from PIL import Image

    for layout in ("files", "shards"):
        options = ExportOptions(layout=layout, image_form="standard")
        export_stage(lake, STAGE, ExportFolder(str(tmp_path / layout)), get_format("ms_swift"), options)
    rows = [json.loads(line) for line in (tmp_path / "files" / f"{STAGE}.jsonl").open(encoding="utf-8")]
    assert read_shards(tmp_path / "shards", tmp_path / "shards") == rows
    names = {name for row in rows for name in row["images"]}
    assert all(name.startswith("standard_images/") for name in names)
    for folder in (tmp_path / "files", tmp_path / "shards"):
        assert {p.relative_to(folder).as_posix() for p in (folder / "standard_images").rglob("*.*")} == names
        for name in names:
            assert min(Image.open(folder / name).size) >= 224
    (tiny,) = (name for row in rows for name in row["images"] if row["license"] == "research only")
    assert tiny.endswith(".jpg")  # it had to be scaled
