"""`mvl gc` removes what is not needed, and nothing that a row or a running process needs."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from mvl_assets.lake.durability import compaction
from mvl_assets.lake.durability.locks import acquire_ingest_lock
from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.lake_queries.removal import gc
from mvl_assets.lake_queries.removal.gc import collect_garbage
from tests.lake.processes import PROJECT, workers
from tests.lake.rows import make_image, pages, put_samples, sample
from tests.lake_queries.removal.purge_world import on_disk
from tests.patience import PATIENCE_S

NOW, WEEK = dt.timedelta(0), dt.timedelta(days=7)
KILLED = """
import datetime as dt, os, signal, sys
from mvl_assets.lake_queries.removal import gc
from mvl_assets.lake.lake import Lake
calls = 0
def deadly(method):
    def call(*args, **kwargs):
        global calls
        done = method(*args, **kwargs)
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return call
for name in ("delete_keys", "compact_fragments", "expire_versions"):
    setattr(gc, name, deadly(getattr(gc, name)))
gc.collect_garbage(Lake(sys.argv[1]), dt.timedelta(0), compact_images=True)
"""


def fill(lake: Lake, used: int, unused: int, size: int = 20_000) -> tuple[list[ImageRow], list[ImageRow]]:
    """Two fragments of pictures: in the first all are in use, in the second `used` are and `unused` are not."""
    first = [make_image(n, size) for n in range(4)]
    second = [make_image(100 + n, size) for n in range(used + unused)]
    lake.get_images("drawn").insert(first)
    lake.get_images("drawn").insert(second)
    kept = [*first, *second[:used]]
    put_samples(lake, "drawn", [sample("drawn", n, image_ids=[p.image_id]) for n, p in enumerate(kept)])
    return kept, second[used:]


def stored(lake: Lake) -> set[str]:
    return {row["image_id"] for row in Lake(lake.root).images.table.iter_rows(["image_id"])}


def test_unreferenced_images_are_removed_and_all_others_stay(lake: Lake) -> None:
    kept, unused = fill(lake, used=1, unused=3)
    result = collect_garbage(lake, WEEK)
    assert (result.n_images, result.image_bytes) == (3, sum(len(p.data) for p in unused))
    assert stored(lake) == {p.image_id for p in kept}
    assert Lake(lake.root).images.read_images([p.image_id for p in kept]) == {p.image_id: p.data for p in kept}


def test_tables_of_arms_keep_their_rows_and_lose_old_versions(lake: Lake) -> None:
    arm = Lake(f"{lake.root}#arm=size/small/0")
    rows = [{"row_id": f"{n:032x}", "position": n, "sample_id": "s", "run_id": "r"} for n in range(3)]
    table = arm.get_table("mixture/single_image")
    for n_rows in (2, 3):
        table.publish([pa.Table.from_pylist(rows[:n_rows], schema=table.spec.columns)])
    report = collect_garbage(arm, NOW)
    assert report.n_expired_versions["mixture/size/small/0/single_image"] >= 1
    assert [row["position"] for row in arm.get_table("mixture/single_image").iter_rows(["position"])] == [0, 1, 2]


def test_images_of_earlier_revisions_and_withdrawn_samples_stay(lake: Lake) -> None:
    pictures = [make_image(n) for n in range(3)]
    lake.get_images("drawn").insert(pictures)
    put_samples(
        lake,
        "drawn",
        [
            sample("drawn", 0, image_ids=[pictures[0].image_id]),
            sample("drawn", 0, revision=2, image_ids=[pictures[1].image_id]),
            sample("drawn", 0, revision=3, withdrawn=True, conversations=[]),
        ],
    )
    assert collect_garbage(lake, WEEK).n_images == 1
    assert stored(lake) == {p.image_id for p in pictures[:2]}


def test_a_dry_run_reports_the_same_and_changes_nothing(lake: Lake) -> None:
    fill(lake, used=1, unused=3)
    lake.get_table("category/ocr").publish([pages("drawn", "x", range(50))], "drawn")
    lake.get_table("category/ocr").publish([pages("drawn", "y", range(50))], "drawn")
    before = {p: p.read_bytes() for p in Path(lake.root).rglob("*") if p.is_file()}
    looked = collect_garbage(lake, NOW, compact_images=True, dry_run=True)
    assert {p: p.read_bytes() for p in Path(lake.root).rglob("*") if p.is_file()} == before
    assert looked.lake_bytes_before == looked.lake_bytes_after == sum(measure_table_sizes(lake).values())
    done = collect_garbage(lake, NOW)
    assert looked.n_images == done.n_images == 3
    assert looked.n_expired_versions["category/ocr"] > 0 and looked.reclaimed_bytes["category/ocr"] > 0
    assert done.lake_bytes_after < done.lake_bytes_before


def test_bytes_of_deleted_images_stay_on_disk_until_their_file_is_rewritten(lake: Lake) -> None:
    kept, unused = fill(lake, used=1, unused=3)
    result = collect_garbage(lake, NOW)
    assert result.reclaimable_bytes == sum(len(p.data) for p in unused)
    assert on_disk(lake.root, unused[0].data), "three of the four pictures of its file are marked, one is in use"
    assert collect_garbage(lake, NOW, compact_images=True).n_compacted_fragments == {"images": 1}
    assert not any(on_disk(lake.root, p.data) for p in unused)
    assert Lake(lake.root).images.read_images([p.image_id for p in kept]) == {p.image_id: p.data for p in kept}
    assert collect_garbage(lake, NOW, compact_images=True).n_compacted_fragments == {}


def test_a_file_that_is_mostly_in_use_is_not_rewritten(lake: Lake) -> None:
    _, unused = fill(lake, used=9, unused=1)
    files = {p: p.stat().st_mtime_ns for p in (Path(lake.root) / "images.lance" / "data").rglob("*")}
    assert collect_garbage(lake, NOW, compact_images=True).n_compacted_fragments == {}
    assert {p: p.stat().st_mtime_ns for p in (Path(lake.root) / "images.lance" / "data").rglob("*")} == files
    assert on_disk(lake.root, unused[0].data)


def test_young_versions_stay_readable_for_processes_that_have_opened_them(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("drawn", "x", range(50))], "drawn")
    reader = table.open_writable()
    table.publish([pages("drawn", "y", range(50))], "drawn")
    assert collect_garbage(lake, WEEK).n_expired_versions == {}
    assert set(reader.to_table(columns=["license"]).column(0).to_pylist()) == {"x"}
    collect_garbage(lake, NOW)
    assert len(table.open().versions()) == 1
    assert {row["license"] for row in Lake(lake.root).get_table("category/ocr").iter_rows()} == {"y"}


def test_bytes_of_replaced_rows_are_reclaimed(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    for who in ("the words of old", "x"):
        table.publish([pages("drawn", who, range(50))], "drawn")
        table.publish([pages("other", who, range(50))], "other")
    collect_garbage(lake, NOW)
    assert not on_disk(lake.root, b"the words of old")
    assert {r["license"] for r in Lake(lake.root).get_table("category/ocr").iter_rows()} == {"x"}


def test_tables_in_use_are_skipped(lake: Lake) -> None:
    kept, unused = fill(lake, used=1, unused=3)
    with workers(("hold", lake.root)) as (holder,), acquire_ingest_lock(lake):
        assert holder.line() == "held"
        result = collect_garbage(lake, WEEK)
        assert result.skipped.keys() == {"unreferenced images", "answers/rewritten/drawn"}
        assert str(holder.process.pid) in result.skipped["answers/rewritten/drawn"]
        assert stored(lake) == {p.image_id for p in (*kept, *unused)}


def test_versions_younger_than_an_hour_are_removed_only_when_no_other_process_writes(lake: Lake) -> None:
    fill(lake, used=1, unused=3)
    before = stored(lake)
    with workers(("hold", lake.root)) as (holder,):
        assert holder.line() == "held"
        with pytest.raises(LeaseHeld):
            collect_garbage(lake, NOW)
    with acquire_ingest_lock(lake), pytest.raises(LeaseHeld):
        collect_garbage(lake, NOW)
    assert stored(lake) == before


def test_answers_are_never_removed(lake: Lake) -> None:
    with workers(("append", lake.root)) as (worker,):
        while worker.line() != "stored 40":
            pass
    count = lake.get_answer_log("rewritten", "drawn").count()
    collect_garbage(lake, NOW)
    assert Lake(lake.root).get_answer_log("rewritten", "drawn").count() == count >= 40


def test_a_damaged_table_is_skipped(lake: Lake) -> None:
    fill(lake, used=1, unused=3)
    lake.get_table("category/ocr").publish([pages("drawn", "x", range(5))], "drawn")
    table = Path(lake.root) / "category" / "ocr.lance"
    for before in sorted((table / "_versions").glob("*.manifest"))[1:]:
        before.unlink()
    next((table / "data").iterdir()).write_bytes(b"")
    result = collect_garbage(Lake(lake.root), WEEK)
    assert "category/ocr" in result.skipped and result.n_images == 3


def test_old_torn_manifests_are_removed(lake: Lake) -> None:
    lake.get_table("category/ocr").publish([pages("drawn", "x", range(5))], "drawn")
    aside = Path(lake.root) / "category" / "ocr.lance" / "_versions" / "torn-1-2.manifest.aside"
    aside.write_bytes(b"")
    assert collect_garbage(lake, WEEK).n_torn_manifests == 0 and aside.exists()
    assert collect_garbage(lake, NOW).n_torn_manifests == 1 and not aside.exists()


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_killed_collection_is_completed_by_running_it_again(lake: Lake, call: int) -> None:
    kept, unused = fill(lake, used=1, unused=3)
    command = [sys.executable, "-c", KILLED, lake.root, str(call)]
    killed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Lake(lake.root).images.read_images([p.image_id for p in kept]) == {p.image_id: p.data for p in kept}
    collect_garbage(Lake(lake.root), NOW, compact_images=True)
    assert stored(lake) == {p.image_id for p in kept}
    assert not any(on_disk(lake.root, p.data) for p in unused)


def test_many_keys_are_deleted_in_several_commits(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "KEYS_PER_MERGE", 2)
    kept, _ = fill(lake, used=0, unused=5)
    assert collect_garbage(lake, WEEK).n_images == 5
    assert stored(lake) == {p.image_id for p in kept}
    assert gc.find_unreferenced_images(lake, "drawn").to_arrow().to_pylist() == []
