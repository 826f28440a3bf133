"""Reading a pack plan."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mvl_assets.lake.lake import Lake
from mvl_training.data import pack_plan
from mvl_training.data.pack_plan import PackPlan


def test_packs_at_positions_far_apart_are_read_in_the_order_asked(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PackPlan(lake, "single_image")
    monkeypatch.setattr(pack_plan, "MAX_READ_GAP", 2)
    positions = [9, 0, 1, 4, 9]
    assert [pack.position for pack in plan.read_packs(positions)] == positions
    assert plan.read_packs([]) == []
    for outside in (-1, len(plan)):
        with pytest.raises(IndexError):
            plan.read_packs([0, outside])


def test_a_new_plan_does_not_change_the_one_that_is_being_read(lake: Lake) -> None:
    plan = PackPlan(lake, "single_image")
    before = plan.read_packs(range(len(plan)))
    table = lake.get_table("pack_plan/single_image")
    columns = [name for name in table.schema.names if name != "row_hash"]
    rows = list(table.iter_rows(columns))
    table.publish([pa.Table.from_pylist([{**rows[0], "row_ids": ["f" * 32] * len(rows[0]["row_ids"])}])])
    try:
        assert plan.read_packs(range(len(plan))) == before and plan.version != PackPlan(lake, "single_image").version
    finally:
        table.publish([pa.Table.from_pylist(rows, schema=table.spec.columns)])
