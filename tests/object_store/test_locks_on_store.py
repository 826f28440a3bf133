"""Leases on a server: ingests share the lake, a removal has it alone, and garbage never takes what an ingest uses."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from mvl_assets.lake.durability import heartbeat, store_lock
from mvl_assets.lake.durability import lease as leases
from mvl_assets.lake.durability.locks import IMAGES_LOCK, LOCK_DIR, acquire_ingest_lock, acquire_removal_lock
from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.gc import collect_garbage
from tests.lake.rows import answer, make_image, pages
from tests.object_store.server import list_files


def test_ingests_share_the_lake_and_a_removal_has_it_alone(root: str) -> None:
    with (
        acquire_ingest_lock(Lake(root)),
        acquire_ingest_lock(Lake(root)),
        pytest.raises(LeaseHeld, match="is ingesting"),
    ):
        acquire_removal_lock(Lake(root)).__enter__()
    with acquire_removal_lock(Lake(root)):
        for acquire in (acquire_ingest_lock, acquire_removal_lock):
            with pytest.raises(LeaseHeld), acquire(Lake(root)):
                pass
    with acquire_ingest_lock(Lake(root)):
        pass


def test_garbage_collection_beside_an_ingest_leaves_its_images(root: str) -> None:
    lake = Lake(root)
    with acquire_ingest_lock(lake):
        lake.get_images("drawn").insert([make_image(1)])
        report = collect_garbage(Lake(root), dt.timedelta(days=7))
        assert "unreferenced images" in report.skipped and lake.images.table.count() == 1
    assert collect_garbage(Lake(root), dt.timedelta(days=7)).n_images == 1
    assert lake.images.table.count() == 0


def test_the_lease_of_a_dead_holder_ends(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(store_lock._Holder, "release", lambda holder: holder._heartbeat.stop())
        with acquire_ingest_lock(Lake(root)):
            pass
    with pytest.raises(LeaseHeld), acquire_removal_lock(Lake(root)):
        pass
    time.sleep(1.1)  # the store tells times in whole seconds
    monkeypatch.setattr(store_lock, "LIFETIME_S", 0.5)
    holder = store_lock._Holder(f"{root}/{LOCK_DIR}/{IMAGES_LOCK}", store_lock.EXCLUSIVE)
    holder._write()
    assert not holder._has_rival()
    holder.release()
    assert not list_files(root)


def test_a_commit_is_refused_once_the_lease_may_be_another_s(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(root)
    table = lake.get_table("category/ocr")
    with acquire_ingest_lock(lake):
        table.publish([pages("drawn", "x", range(3))], "drawn")
        now = heartbeat.read_clock()
        monkeypatch.setattr(heartbeat, "read_clock", lambda: now + store_lock.LIFETIME_S)
        with pytest.raises(LeaseHeld, match="has lost its lease"):
            table.publish([pages("drawn", "x", range(4))], "drawn")
    assert table.count() == 3
    monkeypatch.undo()


def test_answers_have_one_writer_and_are_appended_while_its_lease_is_renewed(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "RENEWALS_PER_LIFETIME", leases.LEASE_TTL_S / 0.1)
    log = Lake(root).get_answer_log("rewritten", "drawn")
    with log:
        with pytest.raises(LeaseHeld), Lake(root).get_answer_log("rewritten", "drawn"):
            pass
        for number in range(0, 16, 4):
            assert log.append([answer(n) for n in range(number, number + 4)]) == 4
        log.maintain()
    assert Lake(root).get_answer_log("rewritten", "drawn").count() == 16
    with Lake(root).get_answer_log("rewritten", "drawn") as again:
        assert again.append([answer(0), answer(16)]) == 1
