"""Bytes in the cells of a column, such as images: referred to when rows are read, read when they are wanted.

A reference can be sent to another process that has the file under the same path. Cells that are read in the order of
their rows decode a group of rows once; memory holds one batch of it.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mvl_assets.readers.parsers.parquet_stream import FILE_ERRORS, format_error

BATCH_BYTES = 4 << 20
MAX_BATCH_ROWS = 256
"""Limits of the rows held at a time: bytes, as far as they are known before, and rows."""

MAX_OPEN_COLUMNS = 4
"""Columns whose files a thread keeps open, however many its rows refer to; a row may have images in several."""

_open_columns = threading.local()


class EmbeddedColumn(ABC):
    """A column of a file that is read cell by cell. Used by one thread at a time.

    Attributes:
        path: The file.
        name: The column.
    """

    group_name = "row group"
    """What the format calls its groups of rows."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._batches: Iterator[pa.Array] = iter(())
        self._group = -1
        self._start = 0
        self._cells: pa.Array | None = None
        self._damage: dict[int, tuple[int, str]] = {}

    @abstractmethod
    def _iter_batches(self, group: int, max_rows: int) -> Iterator[pa.Array]:
        """Yield the cells of a group, at most `max_rows` at a time."""

    @abstractmethod
    def _close_file(self) -> None:
        """Close what `_iter_batches` has opened."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddedColumn) and (self.path, self.name) == (other.path, other.name)

    def __hash__(self) -> int:
        return hash((self.path, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.name)

    def read_cell(self, group: int, row: int) -> pa.Scalar:
        """Return the cell of a row, counted within its group.

        Raises:
            OSError: The file or this part of the group cannot be read.
        """
        self._close_others()
        first_unreadable, message = self._damage.get(group, (row + 1, ""))
        if row >= first_unreadable:  # found before: the rows after a damaged page are lost
            raise OSError(message)
        try:
            if group != self._group or row < self._start:
                self._open_group(group, MAX_BATCH_ROWS)
            try:
                self._advance(row)
            except FILE_ERRORS:  # row by row, damage costs fewer of those before it
                self._open_group(group, 1)
                self._advance(row)
        except (*FILE_ERRORS, LookupError) as error:
            message = (
                f"{self.group_name} {group} of {self.path.name} cannot be read from its row {self._start} on: "
                f"{format_error(error)}; fetch the file again"
            )
            self._damage[group] = (self._start, message)
            self._group = -1
            raise OSError(message) from error
        assert self._cells is not None
        return self._cells[row - self._start]

    def _close_others(self) -> None:
        """Close the column that this thread has used longest ago, if too many are open."""
        recent: list[weakref.ref[EmbeddedColumn]] = _open_columns.__dict__.setdefault("recent", [])
        if recent and recent[-1]() is self:
            return
        used = [column for reference in recent if (column := reference()) is not None and column is not self]
        n_surplus = max(0, len(used) + 1 - MAX_OPEN_COLUMNS)
        for column in used[:n_surplus]:
            column._batches, column._cells, column._group = iter(()), None, -1
            column._close_file()
        recent[:] = [weakref.ref(column) for column in (*used[n_surplus:], self)]

    def _open_group(self, group: int, max_rows: int) -> None:
        self._group, self._start, self._cells = group, 0, None
        self._batches = self._iter_batches(group, max_rows)

    def _advance(self, row: int) -> None:
        """Read on until the batch has the row."""
        while self._cells is None or row >= self._start + len(self._cells):
            self._start += 0 if self._cells is None else len(self._cells)
            self._cells = None
            self._cells = next(self._batches, None)
            if self._cells is None:
                raise ValueError("it has fewer rows than it had before")


class EmbeddedBytes(NamedTuple):
    """Bytes in a cell.

    Attributes:
        column: The column.
        group: Group of rows of the cell, as the format divides its files.
        row: Row of the cell within the group.
        keys: Where the bytes are within the cell: positions in lists and fields of structs.
        expected_bytes: About how many there are.
    """

    column: EmbeddedColumn
    group: int
    row: int
    keys: tuple[int | str, ...]
    expected_bytes: int

    def read(self) -> pa.Buffer:
        """Return the bytes. Raises `OSError` when they cannot be read."""
        cell: Any = self.column.read_cell(self.group, self.row)
        try:
            for key in self.keys:
                cell = cell[key]
            buffer: pa.Buffer | None = cell.as_buffer()
        except (LookupError, TypeError, AttributeError):
            buffer = None
        if buffer is None:
            cell_text = f"row {self.row} of {self.column.group_name} {self.group} of {self.column.path.name}"
            raise OSError(f"{cell_text} holds no bytes")
        return buffer


def replace_bytes(cell: Any, column: EmbeddedColumn, group: int, row: int, keys: tuple[int | str, ...] = ()) -> Any:
    """Return a cell that was read, with references in place of its bytes.

    Args:
        cell: The cell's value.
        column: Its column.
        group: Its group of rows.
        row: Its row in the group.
        keys: Where the value is within the cell.
    """
    if isinstance(cell, bytes):
        return EmbeddedBytes(column, group, row, keys, len(cell))
    if isinstance(cell, list):
        return [replace_bytes(item, column, group, row, (*keys, index)) for index, item in enumerate(cell)]
    if isinstance(cell, dict):
        return {name: replace_bytes(value, column, group, row, (*keys, name)) for name, value in cell.items()}
    return cell


def has_binary(type: pa.DataType) -> bool:
    """Return whether values of a type hold bytes."""
    return is_binary(type) or any(has_binary(type.field(index).type) for index in range(type.num_fields))


def is_binary(type: pa.DataType) -> bool:
    """Return whether values of a type are bytes."""
    return pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type)
