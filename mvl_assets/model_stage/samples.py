"""Selection of the samples of a source that models are asked about."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.stages import CATEGORY

SCAN_BATCH_SIZE = 8192


def resolve_prompt_family(source: SourceSpec) -> str:
    """Return the prompt family of a source.

    Raises:
        SourceError: The source is not rewritten.
    """
    if source.group != "B" or source.family is None:
        raise SourceError(source.slug, f"group {source.group} is not rewritten", hint="only group B is")
    return source.family


def build_sample_filter(lake: Lake, source: SourceSpec, limit: int | None) -> Callable[[str], bool]:
    """Return a predicate for the sample ids within `limit`, which selects the smallest ids (they are hashes).

    A larger limit selects all samples of a smaller one.
    """
    if limit is None:
        return lambda sample_id: True
    table = lake.get_table(CATEGORY.get_table_name(source.category))
    rows = table.iter_rows(["sample_id"], None, SCAN_BATCH_SIZE, partition_key=source.slug)
    smallest_ids = heapq.nsmallest(limit, (row["sample_id"] for row in rows))
    return lambda sample_id: bool(smallest_ids) and sample_id <= smallest_ids[-1]


def snapshot_if_exists(table: TableReader) -> TableReader:
    """Return a reader of the table as it is now, so that several passes see the same rows in the same order."""
    return table.snapshot() if table.exists() else table
