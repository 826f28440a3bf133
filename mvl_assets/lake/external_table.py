"""Lance tables that others wrote, as a source's files: a few rows at a time, in the order of the newest version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import lance
import pyarrow as pa

IO_BUFFER_BYTES = 64 << 20
"""Bytes read ahead; Lance's own default is 2 GB."""

TableReadError = (OSError, ValueError, RuntimeError, pa.ArrowException)
"""What Lance raises for a table that it cannot read."""


def is_table(folder: Path) -> bool:
    """Return whether a folder is a Lance table."""
    return (folder / "_versions").is_dir()


def iter_batches(
    folder: Path, columns: Sequence[str] | None, batch_rows: int, start: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table; blobs are read into them.

    Args:
        folder: The table.
        columns: Columns to read, all by default; those that the table lacks are left out.
        batch_rows: Rows held at a time.
        start: First row.
    """
    dataset = lance.dataset(str(folder))
    names = dataset.schema.names
    scanner = dataset.scanner(
        columns=names if columns is None else [name for name in names if name in columns],
        offset=start or None,
        batch_size=batch_rows,
        batch_readahead=2,
        fragment_readahead=1,
        io_buffer_size=IO_BUFFER_BYTES,
        scan_in_order=True,
        blob_handling="all_binary",
    )
    yield from scanner.to_batches()


def read_schema(folder: Path) -> pa.Schema:
    """Return the columns of a table."""
    return lance.dataset(str(folder)).schema


def count_rows(folder: Path) -> int:
    """Return the number of rows of a table."""
    return int(lance.dataset(str(folder)).count_rows())
