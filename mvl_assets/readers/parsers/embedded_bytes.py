"""Bytes in the cells of a Parquet column, such as images: referred to when rows are read, read when they are wanted.

A reference can be sent to another process that has the file under the same path. Cells that are read in the order of
their rows decode a row group once; memory holds one batch of it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.readers.parsers.parquet_stream import FILE_ERRORS, format_error, open_file

BATCH_BYTES = 4 << 20
MAX_BATCH_ROWS = 256
"""Limits of the rows held at a time: bytes, as the footer states them for a whole row group, and rows."""

MAX_OPEN_COLUMNS = 4
"""Columns whose files a thread keeps open, however many its rows refer to; a row may have images in several."""

_open_columns = threading.local()


class EmbeddedColumn:
    """A column of a Parquet file that is read cell by cell. Used by one thread at a time."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._file: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._row_group = -1
        self._start = 0
        self._cells: pa.Array | None = None
        self._damage: dict[int, tuple[int, str]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddedColumn) and (self.path, self.name) == (other.path, other.name)

    def __hash__(self) -> int:
        return hash((self.path, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddedColumn, (self.path, self.name)

    def read_cell(self, row_group: int, row: int) -> pa.Scalar:
        """Return the cell of a row, counted within its row group.

        Raises:
            OSError: The file or this part of the row group cannot be read.
        """
        self._close_others()
        first_unreadable, message = self._damage.get(row_group, (row + 1, ""))
        if row >= first_unreadable:  # found before: the rows after a damaged page are lost
            raise OSError(message)
        try:
            if row_group != self._row_group or row < self._start:
                self._open_row_group(row_group, MAX_BATCH_ROWS)
            try:
                self._advance(row)
            except FILE_ERRORS:  # row by row, damage costs fewer of those before it
                self._open_row_group(row_group, 1)
                self._advance(row)
        except (*FILE_ERRORS, LookupError) as error:
            message = (
                f"row group {row_group} of {self.path.name} cannot be read from its row {self._start} on: "
                f"{format_error(error)}; fetch the file again"
            )
            self._damage[row_group] = (self._start, message)
            self._row_group = -1
            raise OSError(message) from error
        assert self._cells is not None
        return self._cells[row - self._start]

    def _close_others(self) -> None:
        """Close the column that this thread has used longest ago, if too many are open."""
        recent: list[weakref.ref[EmbeddedColumn]] = _open_columns.__dict__.setdefault("recent", [])
        if recent and recent[-1]() is self:
            return
        used = [column for reference in recent if (column := reference()) is not None and column is not self]
        for column in used[: len(used) + 1 - MAX_OPEN_COLUMNS]:
            column._close()
        recent[:] = [weakref.ref(column) for column in (*used[1 - MAX_OPEN_COLUMNS :], self)]

    def _close(self) -> None:
        """Close the file and drop what was read. The next read opens it again."""
        self._batches, self._cells, self._row_group = iter(()), None, -1
        if self._file is not None:
            self._file.close()
            self._file = None

    def _advance(self, row: int) -> None:
        """Read on until the batch has the row."""
        while self._cells is None or row >= self._start + len(self._cells):
            self._start += 0 if self._cells is None else len(self._cells)
            self._cells = None
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError("it has fewer rows than its footer says")
            self._cells = batch.column(self.name)

    def _open_row_group(self, row_group: int, max_rows: int) -> None:
        self._row_group, self._start, self._cells = row_group, 0, None
        if self._file is None:
            self._file = open_file(self.path)
        row_bytes = estimate_row_bytes(self._file.metadata.row_group(row_group))
        batch_rows = max(1, min(max_rows, BATCH_BYTES // row_bytes))
        self._batches = self._file.iter_batches(
            batch_rows, row_groups=[row_group], columns=[self.name], use_threads=False
        )


class EmbeddedBytes(NamedTuple):
    """Bytes in a cell.

    Attributes:
        column: The column.
        row_group: Row group of the cell.
        row: Row of the cell within the row group.
        keys: Where the bytes are within the cell: positions in lists and fields of structs.
        expected_bytes: About how many there are.
    """

    column: EmbeddedColumn
    row_group: int
    row: int
    keys: tuple[int | str, ...]
    expected_bytes: int

    def read(self) -> pa.Buffer:
        """Return the bytes. Raises `OSError` when they cannot be read."""
        cell: Any = self.column.read_cell(self.row_group, self.row)
        try:
            for key in self.keys:
                cell = cell[key]
            buffer: pa.Buffer | None = cell.as_buffer()
        except (LookupError, TypeError, AttributeError):
            buffer = None
        if buffer is None:
            raise OSError(f"row {self.row} of row group {self.row_group} of {self.column.path.name} holds no bytes")
        return buffer


def estimate_row_bytes(row_group: pq.RowGroupMetaData) -> int:
    """Return the average bytes of a row by the footer's account of the whole row group, at least 1.

    pyarrow 26 ends the process, instead of raising, when it is asked for one column of a group with damaged statistics.
    """
    return max(1, row_group.total_byte_size // max(1, row_group.num_rows))
