"""A folder that is a Lance table, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mvl_assets.lake import external_table
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem
from mvl_assets.readers.parsers.parquet_stream import MAX_BATCH_ROWS, to_dicts


def iter_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Item | RejectedItem]:
    """Yield the rows of a table as objects; a damaged one ends in a `broken_file` item."""
    position = 0
    try:
        for batch in external_table.iter_batches(folder, columns, MAX_BATCH_ROWS):
            for row in to_dicts(batch, position):
                yield Item(position, row)
                position += 1
    except external_table.TableReadError as error:
        yield RejectedItem(position, BROKEN_FILE, f"not readable as Lance: {str(error).splitlines()[0][:300]}")
