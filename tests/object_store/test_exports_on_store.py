"""Exports in a bucket: the files of a disk, whole or not there, written once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export import export_stage as export_module
from mvl_assets.export import json_files, shard_plan
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, ExportResult, Layout, export_stage
from mvl_assets.export.formats.registry import get_format
from mvl_assets.export.stale_exports import iter_stale_exports
from mvl_assets.lake import external_table
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import open_filesystem
from tests.object_store.server import PROJECT, list_files
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

STAGE = "single_image"
KILLED = """
import os, signal, sys
from mvl_assets.export.export_folder import ExportFolder

folder = ExportFolder(sys.argv[1])
with folder.write_file("half.tar") as path:
    path.write_bytes(bytes(20 << 20))
    if sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    stream = folder._filesystem.open_output_stream(folder._resolve("half.tar"))  # as sending does
    stream.write(bytes(12 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("MVL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(shard_plan, "PART_ROWS", 5)
    monkeypatch.setattr(export_module, "PART_ROWS", 5)
    monkeypatch.setattr(json_files, "CHUNK_ROWS", 5)
    return small.fill_lake(tmp_path / "lake", small.draw_shape_samples(11), frames=2)


def read_files(uri: str) -> dict[str, bytes]:
    """The content of each file below a folder, without the times that tars have."""
    folder = ExportFolder(uri)
    contents = {}
    for name in folder.list_files():
        with folder.open_file(name) as file:
            contents[name] = file.read()
    return contents


def list_times(uri: str) -> dict[str, int]:
    filesystem, _ = open_filesystem(uri)
    return {path: filesystem.get_file_info(path).mtime_ns for path in list_files(uri)}


def export(lake: Lake, uri: str, layout: Layout, name: str = "llava_json") -> ExportResult:
    options = ExportOptions(layout=layout, shard_bytes=1)
    return export_stage(lake, STAGE, ExportFolder(uri), get_format(name), options, ProcessExecutor(1))


@pytest.mark.parametrize(
    ("name", "layout"),
    [("llava_json", "files"), ("llava_json", "shards"), ("parquet", "shards"), ("energon", "shards")],
)
def test_a_bucket_has_the_files_of_a_disk_and_they_are_written_once(
    root: str, lake: Lake, tmp_path: Path, name: str, layout: Layout
) -> None:
    places = [str(tmp_path / "disk"), f"{root}/export"]
    results = [export(lake, place, layout, name) for place in places]
    assert results[0] == results[1]
    on_disk, on_store = map(read_files, places)
    assert on_store == on_disk and len(on_store) >= 3
    before = list_times(places[1])
    assert export(lake, places[1], layout, name) == results[1]
    after = list_times(places[1])
    assert {path for path in before if after[path] != before[path]} <= {f"{places[1][5:]}/{STAGE}.json"}
    assert not list((tmp_path / "scratch").iterdir())


def test_an_export_goes_on_where_it_stopped_and_removes_what_is_not_its(root: str, lake: Lake) -> None:
    folder = ExportFolder(f"{root}/export")
    export(lake, folder.uri, "shards")
    whole = read_files(folder.uri)
    kept, lost, half = sorted(name for name in whole if name.endswith(".jsonl"))
    for name in (lost, half, half.replace(".jsonl", ".tar").replace(f"{STAGE}/", f"{STAGE}-images/")):
        folder.delete_file(name)
    with folder.write_file(f"{STAGE}/train-00000-of-00003-0123456789abcdef.jsonl") as path:
        path.write_text("older\n")
    with folder.write_file(f"{STAGE}.json") as path:
        path.write_text("[]")
    written_at = {path: time for path, time in list_times(folder.uri).items() if path.endswith(kept)}
    export(lake, folder.uri, "shards")
    assert read_files(folder.uri).keys() == whole.keys()
    assert written_at.items() <= list_times(folder.uri).items()
    # The other layout takes the place of the shards.
    export(lake, folder.uri, "files")
    assert not [name for name in read_files(folder.uri) if name.startswith((f"{STAGE}/", f"{STAGE}-images/"))]


def test_a_lance_table_is_exported_into_a_bucket(root: str, lake: Lake) -> None:
    for _ in range(2):
        export(lake, f"{root}/export", "shards", "lance")
        uri = f"{root}/export/{STAGE}.lance"
        batches = list(external_table.iter_batches(uri, ["id", "images"], 4))
        assert sum(len(batch) for batch in batches) == 12
        images = [image for batch in batches for row in batch.column("images").to_pylist() for image in row]
        assert images and all(compute_digest(image["bytes"]) == Path(image["path"]).stem for image in images)


@pytest.mark.parametrize("moment", ["before", "while_sending"])
def test_a_killed_export_leaves_no_half_file(root: str, tmp_path: Path, moment: str) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, root, moment],
        cwd=PROJECT,
        env={**os.environ, "MVL_SCRATCH": str(tmp_path)},
        timeout=PATIENCE_S,
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(ExportFolder(root).list_files()) == []
    with pytest.raises(RuntimeError), ExportFolder(root).write_file("half.tar") as path:
        path.write_bytes(b"half")
        raise RuntimeError
    assert list(ExportFolder(root).list_files()) == []


def test_exports_of_removed_images_are_found_and_deleted(root: str, lake: Lake) -> None:
    exports = ExportFolder(root)
    export(lake, exports.join("llava_json").uri, "shards")
    removed = next(lake.images.table.iter_rows(["image_id"]))["image_id"]
    stale = list(iter_stale_exports(exports, set(), IdSet([[removed]])))
    assert len(stale) == 6 and not list(iter_stale_exports(exports, set(), IdSet([["0" * 32]])))
    # A shard whose lines are not there yet is known by its tar.
    for name in stale:
        if name.endswith(".jsonl"):
            exports.delete_file(name)
    assert len(list(iter_stale_exports(exports, set(), IdSet([[removed]])))) == 3
    for name in stale:
        exports.delete_file(name)
    assert not list(exports.list_files())


def test_a_bucket_that_does_not_exist_is_named(root: str, lake: Lake) -> None:
    with pytest.raises(MvlError, match="the bucket of s3://no-such-bucket/export does not exist"):
        export(lake, "s3://no-such-bucket/export", "files")
