"""Reading a pack plan."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mvl_assets.lake.lake import Lake
from mvl_training.data.pack_plan import PackPlan


def test_rows_at_positions_far_apart_are_read_in_the_order_asked(lake: Lake) -> None:
    plan = PackPlan(lake, "single_image")
    positions = [39, 0, 1, 4, 39]
    assert [row.position for row in plan.read_rows(positions)] == positions
    assert plan.read_rows([]) == []
    for outside in (-1, len(plan)):
        with pytest.raises(IndexError):
            plan.read_rows([0, outside])


def test_a_new_plan_does_not_change_the_one_that_is_being_read(lake: Lake) -> None:
    plan = PackPlan(lake, "single_image")
    before = plan.read_rows(range(len(plan)))
    table = lake.get_table("pack_plan/single_image")
    columns = [name for name in table.schema.names if name != "row_hash"]
    rows = list(table.iter_rows(columns))
    table.publish([pa.Table.from_pylist([{**rows[0], "row_id": "f" * 32}])])
    try:
        assert plan.read_rows(range(len(plan))) == before and plan.version != PackPlan(lake, "single_image").version
    finally:
        table.publish([pa.Table.from_pylist(rows, schema=table.spec.columns)])
