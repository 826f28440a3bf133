"""Tables on a store: what a look-up costs, and who may write."""

from __future__ import annotations

import traceback

import pytest

from mvl_assets.errors import MvlError
from mvl_assets.lake.errors import StoreError
from mvl_assets.lake.lake import Lake
from tests.lake.rows import answer, make_image, pages
from tests.object_store.server import KEYS, StoreProcess

TABLE = "category/ocr"


def test_a_look_up_lists_once_and_one_in_a_snapshot_never(store: StoreProcess, root: str) -> None:
    lake = Lake(root)
    table, index = lake.get_table(TABLE), lake.get_index(TABLE)
    rows = pages("drawn", "x", range(40))
    table.publish([rows], "drawn")
    key = rows.column(table.spec.key_column)[0].as_py()
    look_ups = {
        "count": lambda t, i: t.count(partition_key="drawn"),
        "scan": lambda t, i: sum(map(len, t.scan(["source"], partition_key="drawn"))),
        "range": lambda t, i: len(list(t.iter_range(0, 40, ["source"]))),
        "index": lambda t, i: len(i.read_rows([key], ["source"])) * 40,
    }
    still = lake.snapshot()
    still_table, still_index = still.get_table(TABLE), still.get_index(TABLE)
    for look_up in look_ups.values():  # what is read once
        assert look_up(table, index) == look_up(still_table, still_index) == 40
    for name, look_up in look_ups.items():
        before = store.count_listings()
        assert look_up(table, index) == 40
        assert store.count_listings() == before + 1, name
        assert look_up(still_table, still_index) == 40
        assert store.count_listings() == before + 1, f"{name} in a snapshot"


def test_a_snapshot_stays_as_it_is_and_cannot_be_written(root: str) -> None:
    lake = Lake(root)
    lake.get_table(TABLE).publish([pages("drawn", "x", range(4))], "drawn")
    still = lake.snapshot()
    assert still.get_table(TABLE).count() == 4
    lake.get_table(TABLE).publish([pages("drawn", "x", range(6))], "drawn")
    assert (still.get_table(TABLE).count(), lake.get_table(TABLE).count()) == (4, 6)
    for write in (
        lambda: still.get_table(TABLE).publish([pages("drawn", "x", range(8))], "drawn"),
        lambda: still.get_table(TABLE).insert(pages("other", "x", range(8))),
        lambda: still.get_table(TABLE).delete("true"),
        lambda: _append(still),
    ):
        with pytest.raises(MvlError, match="snapshot"):
            write()
    assert lake.get_table(TABLE).count() == 6


def test_credentials_that_expire_in_the_middle_are_one_error_without_them(store: StoreProcess, root: str) -> None:
    lake = Lake(root)
    rows = pages("drawn", "x", range(4))
    lake.get_table(TABLE).publish([rows], "drawn")
    lake.get_images("drawn").insert([make_image(1)])
    (image_id,) = (row["image_id"] for row in lake.images.table.iter_rows(["image_id"]))
    still = lake.snapshot()
    table, index = still.get_table(TABLE), still.get_index(TABLE)
    key = rows.column(table.spec.key_column)[0].as_py()
    assert index.find_existing([key]) and not still.images.find_missing([image_id])
    reads = {
        "newest": lambda: lake.get_table(TABLE).count(),
        "open": lambda: Lake(root).get_table(TABLE).count(),
        "scan": lambda: list(table.scan()),
        "range": lambda: list(table.iter_range(0, 4)),
        "filter": lambda: table.count("source = 'drawn'"),
        "index": lambda: index.read_rows([key]),
        "image": lambda: still.images.read_images([image_id]),
        "write": lambda: lake.get_table(TABLE).publish([rows], "drawn"),
    }
    with store.expired():
        for name, read in reads.items():
            with pytest.raises(StoreError, match="does not accept the credentials") as refused:
                read()
            shown = "".join(traceback.format_exception(refused.value))
            assert not any(value in shown for value in KEYS.values()), name
    for read in reads.values():
        read()


def _append(lake: Lake) -> None:
    with lake.get_answer_log("rewritten", "drawn") as log:
        log.append([answer(1)])
