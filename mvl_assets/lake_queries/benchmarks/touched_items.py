"""Which evaluated items the training rows of some stages touch: pack plans, mixtures and hits joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 4096


def iter_touched_items(lake: Lake, stages: Sequence[str], taints: Sequence[str]) -> Iterator[pa.Table]:
    """Yield `item_id`, `source`, `kind` and `n_rows` of touched items; first, without an item, all training rows.

    A row that shows an image of an item touches all items of that benchmark with this image. An item has the kind of
    its strongest hit, and hits that the profile allows do not count.

    Args:
        lake: The lake.
        stages: Training stages whose planned rows count.
        taints: The kinds of hits that count, the strongest first.

    Raises:
        LakeError: A mixture was replaced after its rows were planned.
    """
    with open_duckdb() as con:
        con.execute("CREATE TABLE trained (sample_id UUID)")
        for stage in stages:
            _add_trained(con, lake, stage)
        con.execute("CREATE TABLE taints (kind VARCHAR, strength INTEGER)")
        if taints:
            con.executemany("INSERT INTO taints VALUES (?, ?)", [(kind, n) for n, kind in enumerate(taints)])
        columns = ["sample_id", "item_source", "benchmark_item", "item_image_id", "kind"]
        condition = "allowed IS NULL AND benchmark_item IS NOT NULL"
        with stream_table(con, "hit_rows", lake.get_table("curation/contamination"), columns, condition):
            con.execute(
                """CREATE TABLE hits AS
                   SELECT h.sample_id::UUID AS sample_id, h.item_source AS source, h.benchmark_item::UUID AS item_id,
                          h.item_image_id::UUID AS image_id, t.strength, h.kind
                   FROM hit_rows h JOIN taints t USING (kind)
                   SEMI JOIN trained r ON r.sample_id = h.sample_id::UUID"""
            )
        items = lake.get_table("curation/benchmark_items")
        with stream_table(con, "item_rows", items, ["item_id", "source", "image_ids"]):
            con.execute(
                """INSERT INTO hits
                   SELECT DISTINCT h.sample_id, i.source, i.item_id::UUID, NULL, h.strength, 'same_image'
                   FROM (SELECT item_id, source, unnest(image_ids)::UUID AS image_id FROM item_rows) i
                   JOIN (SELECT h.sample_id, h.source, h.image_id, t.strength FROM hits h
                         JOIN taints t ON t.kind = 'same_image' WHERE h.image_id IS NOT NULL) h
                   USING (source, image_id)"""
            )
        ((n_rows,),) = con.execute("SELECT count(*) FROM trained").fetchall()
        yield pa.table(
            {
                "item_id": pa.nulls(1, pa.string()),
                "source": pa.nulls(1, pa.string()),
                "kind": pa.nulls(1, pa.string()),
                "n_rows": [n_rows],
            }
        )
        reader = con.sql(
            """SELECT item_id, any_value(source) AS source, arg_min(kind, strength) AS kind,
                      count(DISTINCT sample_id) AS n_rows FROM hits GROUP BY item_id ORDER BY item_id"""
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)


def _add_trained(con: duckdb.DuckDBPyConnection, lake: Lake, stage: str) -> None:
    """Add the samples of the planned rows of a stage."""
    with stream_table(con, "planned_rows", lake.get_table(f"pack_plan/{stage}"), ["row_id"]):
        con.execute("CREATE OR REPLACE TABLE planned AS SELECT row_id::UUID AS row_id FROM planned_rows")
    with stream_table(con, "mixture_rows", lake.get_table(f"mixture/{stage}"), ["row_id", "sample_id"]):
        con.execute(
            """CREATE OR REPLACE TABLE planned_samples AS SELECT m.sample_id::UUID AS sample_id
               FROM mixture_rows m SEMI JOIN planned p ON p.row_id = m.row_id::UUID"""
        )
    counts = con.execute("SELECT (SELECT count(*) FROM planned), (SELECT count(*) FROM planned_samples)").fetchall()
    if counts[0][0] != counts[0][1]:
        raise LakeError(
            f"mixture/{stage} was replaced after its rows were planned", hint=f"materialise pack_plan/{stage} again"
        )
    con.execute("INSERT INTO trained SELECT sample_id FROM planned_samples")
