"""Parquet files of any size, a few rows at a time (parquet.apache.org).

Rows come as dictionaries. One batch and one page of every column are held, not a row group; how large a page is was
decided by whoever wrote the file (usually 1 MB, or one picture).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.readers.json_stream import BROKEN_FILE, BadItem, Item

ROWS = 32
"""Rows in hand at a time: pictures inside rows are up to a few MB each."""

_UNREADABLE = (ValueError, OverflowError, LookupError, pa.ArrowException)
"""What values raise that Python cannot hold; a `LookupError` is of a time zone nobody knows."""


def rows(path: Path, columns: Sequence[str] | None = None, batch_size: int = ROWS) -> Iterator[Item | BadItem]:
    """The rows of a file; `columns` that it lacks are left out. A damaged file ends in a `broken_file` item.

    A cell whose value Python cannot hold (text that is no UTF-8, a date in the year 300,000) is a `BadItem`.
    """
    position = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            names = file.schema_arrow.names
            wanted = names if columns is None else [c for c in columns if c in names]
            for batch in file.iter_batches(batch_size, columns=wanted, use_threads=False):
                for row in _plain(batch, position):
                    yield Item(position, row)
                    position += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        yield BadItem(position, BROKEN_FILE, f"not readable as Parquet: {str(error).splitlines()[0][:300]}")


def _plain(batch: pa.RecordBatch, position: int) -> list[dict[str, Any]]:
    """The batch's rows; one by one when they cannot be had together."""
    try:
        return batch.to_pylist()
    except _UNREADABLE:
        cells = [(name, batch.column(at)) for at, name in enumerate(batch.schema.names)]
        return [{name: _cell(name, column, n, position + n) for name, column in cells} for n in range(len(batch))]


def _cell(name: str, column: pa.Array, at: int, position: int) -> Any:
    try:
        return column[at].as_py()
    except UnicodeDecodeError as error:
        return BadItem(position, "bad_utf8", f"the column {name!r} holds text that is not UTF-8: {error.reason}")
    except _UNREADABLE as error:
        return BadItem(position, "bad_cell", f"the column {name!r} holds a value that cannot be read: {error}"[:300])


def names(path: Path) -> tuple[str, ...]:
    """The columns of a file; none for one that is no Parquet."""
    try:
        with pq.ParquetFile(path) as file:
            return tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError):
        return ()


def row_count(path: Path) -> int:
    """From the footer alone; 0 for a file that is no Parquet."""
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (pa.ArrowException, OSError, ValueError):
        return 0
