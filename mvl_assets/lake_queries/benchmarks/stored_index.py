"""The index of the items' words as it was built last, kept until an item changes.

Building it reads and splits all items, which costs more than matching a few new texts. It holds their words, so purging
a benchmark removes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import BENCHMARK_INDEX


def read_index_arrays(lake: Lake, index_id: str) -> dict[str, np.ndarray]:
    """Return the arrays of the index with this id by name; none if another one is stored, or none at all."""
    rows = lake.get_table(BENCHMARK_INDEX.name).iter_rows(["name", "dtype", "data"], sql.equals("index_id", index_id))
    return {row["name"]: np.frombuffer(row["data"], dtype=row["dtype"]) for row in rows}


def write_index_arrays(lake: Lake, index_id: str, arrays: Mapping[str, np.ndarray], *, run_id: str) -> None:
    """Store arrays of one dimension in place of those of the index before."""
    table = lake.get_table(BENCHMARK_INDEX.name)
    rows = (
        {
            "array_id": compute_digest(index_id, name),
            "index_id": index_id,
            "name": name,
            "dtype": array.dtype.str,
            "data": array.tobytes(),
            "run_id": run_id,
        }
        for name, array in arrays.items()
    )
    table.publish(pa.Table.from_pylist([row], schema=BENCHMARK_INDEX.columns) for row in rows)
