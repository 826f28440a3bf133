"""Parquet files that must have certain columns; a file that lacks one is refused as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.readers.parsers import parquet_images, parquet_stream
from mvl_assets.readers.parsers.embedded_bytes import has_binary
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem

BATCH_BYTES = 64 << 20
"""Limit on the bytes of the rows held at a time, as the file's footer states them; a single row may exceed it."""

MAX_TEXT_BATCHES = 8
"""Batches that are read together where they need no images."""

ColumnAliases = Sequence[tuple[str, ...]]
"""Columns that a file needs. Each is a tuple of the names it goes by; the first that the file has is taken."""


def iter_rows(
    path: Path,
    required: ColumnAliases,
    optional: Sequence[str] = (),
    projection: Sequence[str] | None = None,
) -> Iterator[Item | RejectedItem]:
    """Yield the rows of a file that must have certain columns.

    A file without one of them is one `broken_file` item that names the columns it has. Rows refer to binary cells, such
    as images, by `EmbeddedBytes`.

    Args:
        path: Parquet file.
        required: Columns that the file needs; rows have them under the first of their names.
        optional: Columns that rows have where the file has them.
        projection: Read only these columns. All columns are still required and batches keep their size, so that damage
            ends both ways of reading at the same row.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema, row_bytes = file.schema_arrow, _estimate_row_bytes(file.metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield parquet_stream.reject_rest(0, error)
        return
    names = schema.names
    file_column_by_target = {column[0]: next((name for name in column if name in names), None) for column in required}
    missing = [" or ".join(column) for column in required if file_column_by_target[column[0]] is None]
    if missing:
        yield RejectedItem(0, BROKEN_FILE, f"has the columns {', '.join(names)[:300]}, but not {', '.join(missing)}")
        return
    target_by_file_column = {
        file_column: target_column
        for target_column, file_column in file_column_by_target.items()
        if file_column is not None
    }
    target_by_file_column |= {name: name for name in optional if name in names}
    batch_rows = _compute_batch_rows(row_bytes)
    if projection is not None:
        target_by_file_column = {
            file_column: target for file_column, target in target_by_file_column.items() if target in projection
        }
    columns = tuple(target_by_file_column)
    image_columns = [field.name for field in schema if field.name in columns and has_binary(field.type)]
    if image_columns:
        # A multiple, because damage must not end the rows behind the end of the keys.
        n_batches = max(1, min(MAX_TEXT_BATCHES, BATCH_BYTES // row_bytes // batch_rows))
        items = parquet_images.iter_rows(path, columns, image_columns, batch_rows, n_batches * batch_rows)
    else:
        items = parquet_stream.iter_rows(path, columns, batch_rows)
    for item in items:
        if isinstance(item, Item):
            item = Item(item.position, {target_by_file_column[name]: value for name, value in item.value.items()})
        yield item


def _estimate_row_bytes(metadata: pq.FileMetaData) -> int:
    """Estimate the bytes of a row in the row group with the heaviest ones."""
    groups = (metadata.row_group(group_index) for group_index in range(metadata.num_row_groups))
    return max(map(parquet_stream.estimate_row_bytes, groups), default=1)


def _compute_batch_rows(row_bytes: int) -> int:
    """Return as many rows as `parquet_stream` takes, fewer where the footer says that rows are heavy."""
    return max(1, min(parquet_stream.MAX_BATCH_ROWS, BATCH_BYTES // row_bytes))
