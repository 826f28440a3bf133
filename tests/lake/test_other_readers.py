"""The tables are plain Lance: what the README shows for other readers works."""

from __future__ import annotations

import lancedb

from mvl_assets.lake.lake import Lake
from tests.lake.rows import pages


def test_lancedb_opens_a_table_and_filters_it(lake: Lake) -> None:
    lake.get_table("category/ocr").publish([pages("a", "me", range(5))], "a")
    table = lancedb.connect(f"{lake.root}/category").open_table("ocr")
    assert table.search().where("source = 'a'").select(["sample_id"]).limit(3).to_arrow().num_rows == 3
