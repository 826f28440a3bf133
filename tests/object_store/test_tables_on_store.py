"""Tables on a store: what a look-up costs, and who may write."""

from __future__ import annotations

import pytest

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from tests.lake.rows import answer, pages
from tests.object_store.server import StoreProcess

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


def _append(lake: Lake) -> None:
    with lake.get_answer_log("rewritten", "drawn") as log:
        log.append([answer(1)])
