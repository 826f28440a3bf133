"""What questions of tasks are numbered by: the rows of a benchmark's files, and whether any has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import open_duckdb
from mvl_assets.lake.fragments import format_signature
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import BENCHMARK_ITEMS, BENCHMARK_ITEMS_BASIS
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.lake_queries.current_samples import stream_current_samples
from mvl_assets.lake_queries.rejects import format_reject_partition
from mvl_assets.stages import RAW

# Increased by hand when questions of the same items are numbered otherwise.
QUESTIONS_VERSION = 1


def list_item_rows(lake: Lake, source: str) -> list[dict[str, Any]]:
    """Return `item_id`, `image_ids`, `file` and `position` of the current items of a benchmark."""
    columns = ["sample_id", "image_ids", "file", "position"]
    with open_duckdb() as con, stream_current_samples(con, lake, columns, sql.equals("source", source)):
        rows = con.execute("SELECT sample_id, image_ids, file, position FROM current_samples").fetchall()
    return [dict(zip(("item_id", "image_ids", "file", "position"), row, strict=True)) for row in rows]


def count_file_rows(lake: Lake, source: str) -> dict[str, int]:
    """Return the rows that each file of a source has, as far as samples and rejects tell."""
    counts: dict[str, int] = {}
    for name, partition_key in (("samples", source), ("rejects", format_reject_partition(RAW.name, source))):
        for batch in lake.get_table(name).scan(["file", "position"], None, 8192, partition_key=partition_key):
            files, positions = batch.column("file").to_pylist(), batch.column("position").to_pylist()
            for file, position in zip(files, positions, strict=True):
                if file is not None and position is not None:
                    counts[file] = max(counts.get(file, 0), position + 1)
    return counts


def compute_questions_basis(lake: Lake, source: str, tasks: Mapping[str, str]) -> str:
    """Return the digest of what a benchmark's questions follow from; equal digests have equal questions."""
    fragments = [
        _list_signatures(lake.get_table(name), partition_key)
        for name, partition_key in (("samples", source), ("rejects", format_reject_partition(RAW.name, source)))
    ]
    return compute_digest("benchmark questions", QUESTIONS_VERSION, source, list(tasks.items()), *fragments)


def has_questions(lake: Lake, source: str, basis: str) -> bool:
    """Return whether the questions in `curation/benchmark_items` are those of a basis, and still all there."""
    rows = lake.get_table(BENCHMARK_ITEMS_BASIS.name).iter_rows(["basis", "data_version"], partition_key=source)
    versions = {row["basis"]: row["data_version"] for row in rows}
    return basis in versions and versions[basis] == lake.get_table(BENCHMARK_ITEMS.name).compute_data_version(source)


def record_questions(lake: Lake, source: str, basis: str, data_version: str, *, run_id: str) -> None:
    """Store what the published questions were made of."""
    row = {
        "basis_id": compute_digest("benchmark questions", source),
        "source": source,
        "basis": basis,
        "data_version": data_version,
        "run_id": run_id,
    }
    table = lake.get_table(BENCHMARK_ITEMS_BASIS.name)
    table.publish([pa.Table.from_pylist([row], schema=BENCHMARK_ITEMS_BASIS.columns)], source)


def _list_signatures(table: TableReader, partition_key: str) -> list[str]:
    dataset = table.open_if_exists()
    if dataset is None:
        return []
    own, mixed = table.find_fragments(dataset, partition_key)
    return [format_signature(fragment) for fragment in (*own, *mixed)]
