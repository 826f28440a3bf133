"""Shards: one source on several processes, several sources at once, and what is left in the tables."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.ingest import ingest as module
from mvl_assets.ingest import shard
from mvl_assets.ingest.existing import SampleVersion
from mvl_assets.ingest.ingest import IngestReport, ingest_source
from mvl_assets.ingest.shard import ShardContext, ShardRow, ShardTask
from mvl_assets.lake.durability.locks import acquire_source_lock
from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.fragments import list_data_files
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from mvl_assets.lake_queries.removal.tombstones import Tombstones
from mvl_assets.lake_queries.views import iter_current_samples
from mvl_assets.readers.sample import EncodedImage, Sample, Turn
from tests.ingest.dying_worker import ingest_shard_or_die
from tests.patience import PATIENCE_S
from tests.raw_files import make_image, put, put_json, source, talk

SPEC = source("llava_json")
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from mvl_assets.ingest import shard
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from tests.raw_files import source
shard.SHARD_ROWS = 2
spec = source("llava_json").model_copy(update={"slug": sys.argv[3]})
print("ready", flush=True)
sys.stdin.readline()
ingest_source(Lake(sys.argv[2]), spec, Path(sys.argv[1]), run_id="r")
"""


def write_rows(root: Path, n_rows: int) -> None:
    """Rows that share three images over the whole file, a row whose image is missing and one whose image is bad."""
    for n in range(3):
        put(root, f"{n}.png", make_image(n))
    put(root, "bad.png", b"no picture")
    rows = [{"id": f"r{n}", "image": f"{n % 3}.png", "conversations": talk(f"Q{n}?", "A.")} for n in range(n_rows)]
    rows[1]["image"] = "missing.png"
    rows[-1]["image"] = "bad.png"
    put_json(root, "rows.json", rows)


def read_state(lake: Lake) -> tuple[object, ...]:
    samples = sorted((s["sample_id"], s["revision"], s["content_hash"]) for s in iter_current_samples(lake, SPEC.slug))
    images = sorted(r["image_id"] for r in lake.images.table.iter_rows(["image_id"]))
    rejects = sorted((r["row_key"], r["error"]) for r in lake.get_table("rejects").iter_rows(["row_key", "error"]))
    return samples, images, rejects


def count_changes(report: IngestReport) -> tuple[object, ...]:
    return (
        report.n_rows,
        report.n_new,
        report.n_new_images,
        report.new_image_bytes,
        report.reject_counts,
        report.data_version,
    )


def test_shards_on_processes_give_the_rows_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "raw"
    write_rows(root, 16)
    one, many = Lake(str(tmp_path / "one")), Lake(str(tmp_path / "many"))
    alone = ingest_source(one, SPEC, root, run_id="r")
    monkeypatch.setattr(module, "SHARD_ROWS", 2)
    told: list[int] = []
    together = ingest_source(many, SPEC, root, run_id="r", executor=ProcessExecutor(2), progress=told.append)
    assert len(told) == 8 and max(told) == 15  # the reader itself rejects the row without an image
    assert read_state(many) == read_state(one)
    assert count_changes(together) == count_changes(alone)
    assert set(many.images.read_images(r["image_id"] for r in many.images.table.iter_rows(["image_id"])).values()) == {
        make_image(n) for n in range(3)
    }
    again = ingest_source(many, SPEC, root, run_id="r", executor=ProcessExecutor(2))
    assert (again.n_new, again.n_changed, again.n_withdrawn, again.n_new_images) == (0, 0, 0, 0)


def test_a_shard_of_text_or_of_images_arrives_as_it_was_sent(tmp_path: Path) -> None:
    text = Sample("a.json", 0, (Turn("human", "Q?"), Turn("gpt", "猫\0")), "7", upstream_dataset="x")
    context = ShardContext(str(tmp_path), SPEC, "r", Tombstones(SPEC.slug, False, frozenset(), frozenset()))
    rows = [ShardRow(text, "1" * 32, None), ShardRow(text, "2" * 32, SampleVersion(3, "3" * 32, True))]
    image = Sample("a.json", 1, text.turns, images=(EncodedImage("a.png", data=b"\xff"),))
    for task in (ShardTask(1, context, rows), ShardTask(2, context, [*rows, ShardRow(image, "4" * 32, None)])):
        sent = pickle.loads(pickle.dumps(task))
        assert type(sent) is ShardTask and sent == task


class DyingExecutor(ProcessExecutor):
    """Processes of which some are killed once they have written a shard."""

    folder: Path

    def run(self, function: Any, tasks: Iterable[Any]) -> Generator[Any, None, None]:
        return super().run(partial(ingest_shard_or_die, self.folder), tasks)


def test_killed_workers_leave_the_rows_of_an_undisturbed_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "raw"
    write_rows(root, 12)
    one, many = Lake(str(tmp_path / "one")), Lake(str(tmp_path / "many"))
    alone = ingest_source(one, SPEC, root, run_id="r")
    monkeypatch.setattr(module, "SHARD_ROWS", 3)
    executor = DyingExecutor(2)
    executor.folder = tmp_path
    together = ingest_source(many, SPEC, root, run_id="r", executor=executor)
    assert len(list(tmp_path.glob("*.killed"))) == 2
    assert read_state(many) == read_state(one) and count_changes(together) == count_changes(alone)


def test_two_processes_ingest_different_sources_at_once(tmp_path: Path) -> None:
    children = []
    for slug in ("one", "two"):
        write_rows(tmp_path / slug, 16)
        command = [sys.executable, "-c", CHILD, str(tmp_path / slug), str(tmp_path / "lake"), slug]
        children.append(
            subprocess.Popen(
                [*command, str(Path(__file__).parents[2])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.wait(PATIENCE_S) for child in children] == [0, 0]
    lake = Lake(str(tmp_path / "lake"))
    for slug in ("one", "two"):
        assert lake.get_table("samples").count(partition_key=slug) == 14
        assert lake.images.table.count(partition_key=slug) == 3


def test_second_ingest_of_the_same_source_is_refused_while_one_runs(lake: Lake, tmp_path: Path) -> None:
    write_rows(tmp_path, 4)
    with acquire_source_lock(lake, SPEC.slug), pytest.raises(LeaseHeld, match="is being ingested"):
        ingest_source(lake, SPEC, tmp_path, run_id="r")
    assert not lake.get_table("samples").exists()
    assert ingest_source(lake, SPEC, tmp_path, run_id="r").n_new == 2


def test_many_small_fragments_of_samples_are_compacted_at_the_end(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, 24)
    monkeypatch.setattr(shard, "SHARD_ROWS", 2)
    appended: list[str] = []
    append = Table.append_fragments

    def note_append(self: Table, written: list) -> None:
        appended.extend(name for part in written for name in list_data_files(part.to_lance()))
        append(self, written)

    monkeypatch.setattr(Table, "append_fragments", note_append)
    ingest_source(lake, SPEC, tmp_path, run_id="r")
    samples = lake.get_table("samples")
    assert len(appended) > 12 and len(samples.find_fragments(samples.open(), SPEC.slug)[0]) == 1
    native_ids = [s["native_id"] for s in iter_current_samples(lake, SPEC.slug)]
    assert native_ids == [f"r{n}" for n in range(24) if n not in (1, 23)]


def test_shard_that_fails_leaves_no_thread_and_no_row(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, 8)
    monkeypatch.setattr(shard, "MAX_PENDING_ROWS", 2)

    def fail(*args: object) -> None:
        raise OSError("out of luck")

    monkeypatch.setattr(shard, "build_version_table", fail)
    with pytest.raises(OSError, match="out of luck"):
        ingest_source(lake, SPEC, tmp_path, run_id="r")
    assert lake.get_table("samples").count() == lake.images.table.count() == 0
    monkeypatch.undo()
    assert ingest_source(lake, SPEC, tmp_path, run_id="r").n_new == 6
