"""A purge removes data from every table and from the disk, and nothing else; killed anywhere, it is run again."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.batch_journal import BatchedRequest, StoredBatch
from mvl_assets.lake.durability.lease import create_lease
from mvl_assets.lake.durability.locks import acquire_ingest_lock
from mvl_assets.lake.errors import LakeError, LeaseHeld
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake_queries.removal.purge import Purge, resolve_sample_ids
from mvl_assets.lake_queries.removal.tombstones import load_tombstones
from mvl_assets.lake_queries.views import iter_mixture_rows
from tests.lake.processes import PROJECT, workers
from tests.lake.rows import sample, table_of
from tests.lake_queries.removal.purge_world import (
    GONE,
    SHARED,
    STAGE,
    STAYS,
    Row,
    fill,
    key_of,
    on_disk,
    own_image,
    secret,
    state,
)
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Row]]]:
    folder = tmp_path_factory.mktemp("world") / "lake"
    return folder, fill(Lake(str(folder)))


@pytest.fixture
def rows(world: tuple[Path, dict[str, list[Row]]]) -> dict[str, list[Row]]:
    return world[1]


@pytest.fixture
def lake(world: tuple[Path, dict[str, list[Row]]], tmp_path: Path) -> Lake:
    return Lake(str(shutil.copytree(world[0], tmp_path / "lake")))


@pytest.fixture(scope="module")
def purged(world: tuple[Path, dict[str, list[Row]]], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The lake after the source was purged; a killed ingest had left a file that no table knows. Not to be written."""
    lake = Lake(str(shutil.copytree(world[0], tmp_path_factory.mktemp("purged") / "lake")))
    lost(lake).write_bytes(own_image(GONE, 0).data)
    left = Purge(lake, GONE).run()
    assert not left.row_counts and not left.n_images
    return Lake(lake.root)


def lost(lake: Lake) -> Path:
    return Path(lake.root) / "images.lance" / "data" / "lost.lance"


def without_source(before: dict[str, list[str]], rows: dict[str, list[Row]]) -> dict[str, list[str]]:
    """What every table has to say when the source is gone, but for those that are made anew or emptied."""
    words = [repr(GONE), *(repr(r["sample_id"]) for r in rows[GONE])]
    words += [own_image(GONE, row).image_id for row in range(3)]
    anew = (f"mixture/{STAGE}", f"pack_plan/{STAGE}", f"packed_rows/{STAGE}", f"answers/evaluation/{STAGE}")
    kept = {n: [r for r in output if not any(w in r for w in words)] for n, output in before.items() if n not in anew}
    return {name: said for name, said in kept.items() if said}


def test_a_purged_source_is_gone_from_every_table_and_the_other_source_is_untouched(
    lake: Lake, purged: Lake, rows: dict[str, list[Row]]
) -> None:
    plan = Purge(lake, GONE).plan()
    counts = plan.row_counts
    assert counts["samples"] == counts["judged/ocr"] == 4 == counts["answers/judged/gone"] / 3
    assert (plan.n_images, plan.n_shared_images, plan.affected_stages) == (4, 0, [STAGE])
    result = state(purged)
    assert len(result.pop("tombstones")) == 1
    remixed = result.pop(f"mixture/{STAGE}")
    assert result == without_source(state(lake), rows)
    assert len(remixed) == 4 and not any(repr(GONE) in row for row in remixed)


def test_a_purge_removes_the_bytes_from_the_disk(lake: Lake, purged: Lake) -> None:
    for row in range(3):
        data, words = own_image(GONE, row).data, secret(GONE, row).encode()
        assert on_disk(lake.root, data) and on_disk(lake.root, words)
        assert on_disk(purged.root, data[:200]) == on_disk(purged.root, data[-200:]) == []
        assert on_disk(purged.root, words) == []
    assert not lost(purged).exists()


def test_an_image_that_another_source_uses_stays(purged: Lake) -> None:
    kept = {p.image_id: p.data for p in (SHARED, *(own_image(STAYS, row) for row in range(3)))}
    assert purged.images.read_images(kept) == kept


def test_a_mixture_stays_readable_without_the_source_and_its_pack_plan_is_empty(purged: Lake) -> None:
    mixed = list(iter_mixture_rows(purged, STAGE))
    assert [row["position"] for row in mixed] == list(range(4))
    assert {row["source"] for row in mixed} == {STAYS}
    assert purged.get_table(f"pack_plan/{STAGE}").count() == 0
    assert purged.get_table(f"packed_rows/{STAGE}").count() == 0


def test_packed_rows_of_an_earlier_plan_go_with_any_purge(lake: Lake, rows: dict[str, list[Row]]) -> None:
    packed = lake.get_table(f"packed_rows/{STAGE}")
    lake.get_table(f"pack_plan/{STAGE}").publish(())
    assert Purge(lake, GONE).plan().row_counts[f"packed_rows/{STAGE}"] == packed.count() == 8
    Purge(lake, GONE, [rows[GONE][2]["sample_id"]]).run()
    assert packed.count() == 0
    assert on_disk(lake.root, own_image(GONE, 2).data[:200]) == []


def test_nothing_is_purged_while_packs_are_materialised(lake: Lake) -> None:
    with create_lease(lake.get_table(f"packed_rows/{STAGE}")), pytest.raises(LeaseHeld):
        Purge(lake, GONE).run()


def test_purging_a_sample_removes_its_exact_copies_and_nothing_else(lake: Lake, rows: dict[str, list[Row]]) -> None:
    ids = [r["sample_id"] for r in rows[GONE]]
    assert resolve_sample_ids(lake, [ids[0][:10]]) == {GONE: [ids[0]]}
    purge = Purge(lake, GONE, [ids[0]])
    plan = purge.plan()
    assert plan.n_copies == 1 and plan.row_counts["samples"] == plan.row_counts["rewritten/ocr"] == 2
    assert plan.row_counts["evaluation/held_out"] == plan.row_counts[f"answers/evaluation/{STAGE}"] - 1 == 1
    purge.run()
    again = Lake(lake.root)
    assert {r["sample_id"] for r in again.get_table("samples").iter_rows()} == set(ids[1:3]) | {
        r["sample_id"] for r in rows[STAYS]
    }
    assert on_disk(lake.root, secret(GONE, 0).encode()) == []
    assert on_disk(lake.root, own_image(GONE, 0).data[:200]) == []
    assert on_disk(lake.root, secret(GONE, 1).encode()) != []
    assert again.get_table(f"mixture/{STAGE}").count() == 6
    purged = load_tombstones(again, GONE)
    assert purged.sample_ids == {ids[0], ids[3]} and not purged.is_whole_source


def test_an_answer_that_another_sample_shares_stays(lake: Lake, rows: dict[str, list[Row]]) -> None:
    Purge(lake, GONE, [rows[GONE][1]["sample_id"]]).run()
    left = {r["request_key"] for r in lake.get_table("answers/rewritten/gone").iter_rows()}
    assert key_of(GONE, "rewrite", 1) in left, "row 2 was answered by the same request"
    judged = {r["request_key"] for r in lake.get_table("answers/judged/gone").iter_rows()}
    assert judged == {key_of(GONE, "judge", which) for n in (0, 2, 3) for which in (n, f"second {n}", f"vote {n}")}


def test_orphan_answers_are_counted_and_removed_only_on_request(lake: Lake, rows: dict[str, list[Row]]) -> None:
    purge = Purge(lake, GONE, [rows[GONE][2]["sample_id"]])
    assert purge.plan().n_orphan_answers == 1
    purge.run(keep_bytes=True)
    table = lake.get_table("answers/rewritten/gone")
    assert table.count() == 4
    Purge(lake, GONE, [rows[GONE][2]["sample_id"]]).run(include_orphan_answers=True)
    assert {r["request_key"] for r in table.iter_rows()} == {key_of(GONE, "rewrite", n) for n in (0, 1, 3)}


def test_an_equal_sample_of_another_source_is_reported_and_stops_being_a_duplicate(
    lake: Lake, rows: dict[str, list[Row]]
) -> None:
    purge = Purge(lake, GONE, [rows[GONE][1]["sample_id"]])
    assert purge.plan().duplicates_elsewhere == [(STAYS, rows[STAYS][1]["sample_id"])]
    purge.run()
    assert lake.get_table("curation/duplicates").count() == 0


def test_a_purge_plan_changes_nothing(lake: Lake) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(lake.root).rglob("*") if p.is_file()}
    Purge(lake, GONE).plan()
    assert {p: p.stat().st_mtime_ns for p in Path(lake.root).rglob("*") if p.is_file()} == before


def test_rows_can_be_purged_first_and_their_bytes_later(lake: Lake) -> None:
    left = Purge(lake, GONE).run(keep_bytes=True)
    assert not left.row_counts and not left.n_images
    assert on_disk(lake.root, own_image(GONE, 1).data)
    Purge(lake, GONE).run()
    assert not on_disk(lake.root, own_image(GONE, 1).data[:200])


def test_a_purge_is_refused_while_its_answers_are_written_or_an_ingest_runs(lake: Lake) -> None:
    before = state(lake)
    called: list[str] = []
    with workers(("hold", lake.root)) as (holder,):
        assert holder.line() == "held"
        with pytest.raises(LeaseHeld, match=str(holder.process.pid)):
            Purge(lake, "drawn").run(keep_bytes=True, before_delete=lambda: called.append("first"))
        with pytest.raises(LeaseHeld):
            Purge(lake, GONE).run(before_delete=lambda: called.append("first"))
    with acquire_ingest_lock(lake), pytest.raises(LeaseHeld, match="into the lake"):
        Purge(lake, GONE).run(before_delete=lambda: called.append("first"))
    assert state(lake) == before and not called


def test_rows_can_be_purged_while_other_answers_are_written(lake: Lake) -> None:
    with workers(("hold", lake.root)) as (holder,):
        assert holder.line() == "held"
        assert not Purge(lake, GONE).run(keep_bytes=True).row_counts


def test_an_image_that_another_source_begins_to_use_before_the_purge_is_confirmed_stays(lake: Lake) -> None:
    purge = Purge(lake, GONE)
    assert purge.plan().n_images == 4
    wanted = own_image(GONE, 1)
    Lake(lake.root).get_images("late").insert([wanted])
    late = sample("late", 0, image_ids=[wanted.image_id])
    Lake(lake.root).get_table("samples").insert(table_of(SAMPLES, [late]))
    purge.run()
    assert Lake(lake.root).images.read_images([wanted.image_id]) == {wanted.image_id: wanted.data}


def test_requests_in_batches_are_forgotten_with_their_source(lake: Lake) -> None:
    for number, source in enumerate((GONE, STAYS)):
        request = BatchedRequest(compute_digest(source), "m", "1", "p", "h", None)
        batch = StoredBatch(str(number) * 32, 1, "http://a/v1", dt.datetime.now(dt.UTC))
        lake.get_answer_log("rewritten", source).batches.save(batch, [request])
    Purge(lake, GONE).run(keep_bytes=True)
    assert [len(Lake(lake.root).get_answer_log("rewritten", s).batches.list_batches()) for s in (GONE, STAYS)] == [0, 1]


def test_an_ingest_is_refused_during_a_purge(lake: Lake) -> None:
    seen: list[type[BaseException]] = []

    def ingest() -> None:
        with pytest.raises(LeaseHeld, match="is being removed") as caught, acquire_ingest_lock(Lake(lake.root)):
            pass
        seen.append(caught.type)

    Purge(lake, GONE).run(before_delete=ingest)
    assert seen == [LeaseHeld]


@pytest.mark.parametrize("words", ["abc", "xyz-no-hex", "0123456789"])
def test_an_id_without_a_sample_is_an_error(lake: Lake, words: str) -> None:
    with pytest.raises(LakeError):
        resolve_sample_ids(lake, [words])


def test_a_killed_purge_is_completed_by_running_it_again(
    world: tuple[Path, dict[str, list[Row]]], tmp_path: Path
) -> None:
    def copy(name: str) -> str:
        return str(shutil.copytree(world[0], tmp_path / name))

    undisturbed = copy("undisturbed")
    writes = int(purge_in_a_process(undisturbed, "none").stdout)
    chance = random.Random(20241206)
    for write in chance.sample(range(1, writes + 1), 5):
        moment = f"{write}-{chance.choice(('before', 'after'))}"
        root = copy(moment)
        killed = purge_in_a_process(root, moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        Purge(Lake(root), GONE).run()
        assert state(Lake(root)) == state(Lake(undisturbed)), moment
        for row in range(3):
            assert on_disk(root, own_image(GONE, row).data[:200]) == [], moment
            assert on_disk(root, secret(GONE, row).encode()) == [], moment


def purge_in_a_process(root: str, moment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.lake_queries.removal.purge_world", root, moment]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S)


def test_arms_of_studies_lose_the_rows_as_the_pipeline_does(lake: Lake, rows: dict[str, list[Row]]) -> None:
    arm = Lake(f"{lake.root}#arm=size/small/0")
    for family in ("mixture", "pack_plan"):
        table = lake.get_table(f"{family}/{STAGE}")
        arm.get_table(f"{family}/{STAGE}").publish([table.open().to_table(columns=table.spec.columns.names)])
    purge = Purge(arm, GONE)
    assert f"size/small/0/{STAGE}" in purge.plan().affected_stages
    purge.run()
    sources = [row["source"] for row in arm.get_table(f"mixture/{STAGE}").iter_rows(["source"])]
    assert sources and GONE not in sources
    assert arm.get_table(f"pack_plan/{STAGE}").count() == 0
