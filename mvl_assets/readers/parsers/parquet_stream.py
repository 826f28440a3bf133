"""Parquet files of any size, a few rows at a time (parquet.apache.org).

Rows come as dictionaries. One batch and one page of every column are held, not a row group; the writer of
the file decided how large a page is (usually 1 MB, or one image).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem

MAX_BATCH_ROWS = 32
"""Rows held at a time: images inside rows are up to a few MB each."""

FILE_ERRORS = (pa.ArrowException, OSError, ValueError)
"""Errors raised for a file that is damaged or no Parquet."""

_CELL_ERRORS = (ValueError, OverflowError, LookupError, pa.ArrowException)
"""Errors raised for values that Python cannot hold; a `LookupError` comes from an unknown time zone."""


def iter_rows(
    path: Path, columns: Sequence[str] | None = None, batch_size: int = MAX_BATCH_ROWS
) -> Iterator[Item | RejectedItem]:
    """Yield the rows of a file as objects; a damaged file ends in a `broken_file` item.

    A cell whose value Python cannot hold (text that is not UTF-8, a date in the year 300,000) is a `RejectedItem`.

    Args:
        path: Parquet file.
        columns: Columns to read, all by default; those that the file lacks are left out.
        batch_size: Rows held at a time.
    """
    position = 0
    try:
        with open_file(path) as file:
            names = file.schema_arrow.names
            selected_columns = names if columns is None else [c for c in columns if c in names]
            # By row group, so that all ways of reading a file end at the same row of a damaged one.
            for row_group in range(file.metadata.num_row_groups):
                for batch in file.iter_batches(
                    batch_size, row_groups=[row_group], columns=selected_columns, use_threads=False
                ):
                    for row in to_dicts(batch, position):
                        yield Item(position, row)
                        position += 1
    except FILE_ERRORS as error:
        yield reject_rest(position, error)


def open_file(path: Path) -> pq.ParquetFile:
    """Open a file that is read a page at a time."""
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


def reject_rest(position: int, error: BaseException, format: str = "Parquet") -> RejectedItem:
    """Return what stands for the rows from a position on, which cannot be read."""
    return RejectedItem(position, BROKEN_FILE, f"not readable as {format}: {format_error(error)}")


def estimate_row_bytes(row_group: pq.RowGroupMetaData) -> int:
    """Return the average bytes of a row by the footer's account of the whole row group, at least 1.

    pyarrow 26 ends the process, instead of raising, when it is asked for one column of a group with damaged statistics.
    """
    return max(1, row_group.total_byte_size // max(1, row_group.num_rows))


def format_error(error: BaseException) -> str:
    """Return the first line of what Arrow says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def to_dicts(batch: pa.RecordBatch, position: int) -> list[dict[str, Any]]:
    """Return the batch's rows; cell by cell when they cannot be converted together.

    Args:
        batch: The rows.
        position: Position of the first one in the file.
    """
    try:
        return batch.to_pylist()
    except _CELL_ERRORS:
        cells = [(name, batch.column(column_index)) for column_index, name in enumerate(batch.schema.names)]
        return [
            {name: _read_cell(name, column, row_index, position + row_index) for name, column in cells}
            for row_index in range(len(batch))
        ]


def _read_cell(name: str, column: pa.Array, row_index: int, position: int) -> Any:
    try:
        return column[row_index].as_py()
    except UnicodeDecodeError as error:
        return RejectedItem(position, "bad_utf8", f"the column {name!r} holds text that is not UTF-8: {error.reason}")
    except _CELL_ERRORS as error:
        return RejectedItem(
            position, "bad_cell", f"the column {name!r} holds a value that cannot be read: {error}"[:300]
        )


def read_column_names(path: Path) -> tuple[str, ...]:
    """Return the columns of a file; none for one that is not Parquet."""
    try:
        with pq.ParquetFile(path) as file:
            return tuple(file.schema_arrow.names)
    except FILE_ERRORS:
        return ()


def count_rows(path: Path) -> int:
    """Return the number of rows by the footer alone; 0 for a file that is not Parquet."""
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except FILE_ERRORS:
        return 0
