"""Parquet files with images in their rows: the rows come with references to the images instead of their bytes.

Which cells hold an image follows from the file's other columns, such as the paths beside the bytes, and from the number
of nulls that the footer states, so the bytes themselves are not read. Where that does not say it (lists of bare bytes,
rows of which some have bytes and others a path alone), the column is read and the bytes are dropped.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.readers.parsers import parquet_stream
from mvl_assets.readers.parsers.embedded_bytes import (
    BATCH_BYTES,
    EmbeddedBytes,
    EmbeddedColumn,
    is_binary,
    replace_bytes,
)
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem

BYTES_FIELD = "bytes"
"""Field of a struct that holds an image's bytes, as `datasets` names it."""


def iter_rows(
    path: Path, columns: Sequence[str], image_columns: Sequence[str], batch_rows: int, text_batch_rows: int
) -> Iterator[Item | RejectedItem]:
    """Yield the rows of a file as `parquet_stream.iter_rows`, with `EmbeddedBytes` where `image_columns` hold bytes.

    Args:
        path: Parquet file.
        columns: Columns to read; the file has them.
        image_columns: Those of them that hold bytes.
        batch_rows: Rows held at a time with their images.
        text_batch_rows: Rows held at a time where images need not be read.
    """
    position = 0
    try:
        with parquet_stream.open_file(path) as file, _open_sealed(path) as sealed_file:
            images = [_ImageColumn(file, path, name) for name in columns if name in image_columns]
            other_columns = [name for name in columns if name not in image_columns]
            for row_group in range(file.metadata.num_row_groups):
                for image in images:
                    image.start_row_group(file, sealed_file, row_group, can_skip=bool(other_columns))
                leaves = [*other_columns, *(leaf for image in images for leaf in image.leaves)]
                sizes = (text_batch_rows, batch_rows) if all(image.is_skipped for image in images) else (batch_rows,)
                row = 0
                for batch in _iter_batches(file, row_group, leaves, sizes):
                    for value in parquet_stream.to_dicts(batch, position):
                        for image in images:
                            value[image.name] = image.replace_bytes(value.get(image.name), row)
                        yield Item(position, value)
                        position += 1
                        row += 1
    except parquet_stream.FILE_ERRORS as error:
        yield parquet_stream.reject_rest(position, error)


def _iter_batches(
    file: pq.ParquetFile, row_group: int, leaves: Sequence[str], sizes: Sequence[int]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group in batches of the first size; near damage of the next, to lose fewer rows."""
    n_read = 0
    try:
        for batch in file.iter_batches(sizes[0], row_groups=[row_group], columns=leaves, use_threads=False):
            n_read += len(batch)
            yield batch
    except parquet_stream.FILE_ERRORS:
        if len(sizes) == 1:
            raise
        for batch in _iter_batches(file, row_group, leaves, sizes[1:]):
            if n_read <= 0:
                yield batch
            n_read -= len(batch)


class _SealedFile(io.FileIO):
    """A file whose content cannot be read any more once it is sealed."""

    is_sealed = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.is_sealed:
            raise _ContentReached
        return super().read(size)


class _ContentReached(Exception):
    """Arrow has accepted the metadata of a column and wants a page of it."""


@contextmanager
def _open_sealed(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file so that its metadata can be used, and each read of its content raises `_ContentReached`."""
    with _SealedFile(path) as raw_file, pq.ParquetFile(raw_file) as file:
        raw_file.is_sealed = True
        yield file


class ParquetColumn(EmbeddedColumn):
    """A column of a Parquet file; its groups are row groups."""

    _file: pq.ParquetFile | None = None

    def _iter_batches(self, group: int, max_rows: int) -> Iterator[pa.Array]:
        if self._file is None:
            self._file = parquet_stream.open_file(self.path)
        row_bytes = parquet_stream.estimate_row_bytes(self._file.metadata.row_group(group))
        n_rows = max(1, min(max_rows, BATCH_BYTES // row_bytes))
        batches = self._file.iter_batches(n_rows, row_groups=[group], columns=[self.name], use_threads=False)
        for batch in batches:
            yield batch.column(self.name)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _ImageColumn:
    """A column that may hold images, and how it is read in the current row group.

    Attributes:
        name: Name of the column.
        leaves: What is read of it.
        is_skipped: Whether that leaves out the bytes.
    """

    def __init__(self, file: pq.ParquetFile, path: Path, name: str) -> None:
        self.name = name
        self.leaves = [name]
        self.is_skipped = False
        self._embedded = ParquetColumn(path, name)
        names = file.schema_arrow.names
        field_type = file.schema_arrow.field(names.index(name)).type
        self._is_list = _is_list(field_type)
        cell_type = field_type.value_type if self._is_list else field_type
        self._is_struct = pa.types.is_struct(cell_type)
        leaf_paths = [file.schema.column(index).path for index in range(len(file.schema))]
        own_paths = [leaf for leaf in leaf_paths if leaf.partition(".")[0] == name]
        bytes_paths = own_paths
        if self._is_struct:
            bytes_paths = [leaf for leaf in own_paths if leaf.rpartition(".")[2] == BYTES_FIELD]
            has_bytes = any(field.name == BYTES_FIELD and is_binary(field.type) for field in cell_type)
        else:
            has_bytes = is_binary(cell_type)
        self._other_leaves = [leaf for leaf in own_paths if leaf not in bytes_paths]
        # Without another field in the struct, the lengths of lists and the nulls are known from the bytes alone.
        is_plain = not self._is_list and not self._is_struct
        is_only = names.count(name) == 1 and len(bytes_paths) == 1
        self._can_skip = has_bytes and is_only and (is_plain or bool(self._other_leaves))
        self._bytes_leaf = bytes_paths[0] if self._can_skip else ""
        self._bytes_index = leaf_paths.index(self._bytes_leaf) if self._can_skip else -1
        self._row_group = 0
        self._row_bytes = 1

    def start_row_group(
        self, file: pq.ParquetFile, sealed_file: pq.ParquetFile, row_group: int, *, can_skip: bool
    ) -> None:
        """Decide how the column is read in a row group; without `can_skip` it is read as a whole."""
        self._row_group = row_group
        self._row_bytes = parquet_stream.estimate_row_bytes(file.metadata.row_group(row_group))
        self.is_skipped = can_skip and self._can_skip and self._has_all_bytes(file, sealed_file, row_group)
        self.leaves = self._other_leaves if self.is_skipped else [self.name]

    def replace_bytes(self, cell: Any, row: int) -> Any:
        """Return the cell of a row with references in place of bytes."""
        if not self.is_skipped:
            return replace_bytes(cell, self._embedded, self._row_group, row)
        if self._is_list and isinstance(cell, list):
            return [
                {**item, BYTES_FIELD: self._create_reference(row, (index, BYTES_FIELD), len(cell))}
                if item is not None
                else None
                for index, item in enumerate(cell)
            ]
        if isinstance(cell, dict):
            cell[BYTES_FIELD] = self._create_reference(row, (BYTES_FIELD,))
        return cell if self._is_list or self._is_struct else self._create_reference(row, ())

    def _create_reference(self, row: int, keys: tuple[int | str, ...], n_images: int = 1) -> EmbeddedBytes:
        return EmbeddedBytes(self._embedded, self._row_group, row, keys, self._row_bytes // n_images)

    def _has_all_bytes(self, file: pq.ParquetFile, sealed_file: pq.ParquetFile, row_group: int) -> bool:
        """Return whether each cell (of a struct: each that is not null) has its bytes, as the footer says."""
        try:
            # pyarrow 26 ends the process when it is asked for the metadata of a column whose statistics are damaged;
            # when it is about to read the column, it raises.
            next(sealed_file.iter_batches(1, row_groups=[row_group], columns=[self._bytes_leaf], use_threads=False))
        except (_ContentReached, StopIteration):
            pass
        except parquet_stream.FILE_ERRORS:
            return True  # who reads the images finds the damage, and loses only the rows that it concerns
        chunk = file.metadata.row_group(row_group).column(self._bytes_index)
        statistics = chunk.statistics if chunk.physical_type == "BYTE_ARRAY" and chunk.is_stats_set else None
        if statistics is None or not statistics.has_null_count:
            return False
        if not statistics.null_count or not self._other_leaves:
            return not statistics.null_count
        batches = file.iter_batches(8192, row_groups=[row_group], columns=self._other_leaves, use_threads=False)
        return bool(statistics.null_count == sum(_count_missing_structs(batch.column(0)) for batch in batches))


def _count_missing_structs(cells: pa.Array) -> int:
    """Return how many nulls a column of structs, or of lists of them, puts into each of its leaves."""
    if not _is_list(cells.type):
        return int(cells.null_count)
    n_empty = sum(1 for length in cells.value_lengths().to_pylist() if not length)
    return n_empty + int(cells.flatten().null_count)


def _is_list(type: pa.DataType) -> bool:
    return pa.types.is_list(type) or pa.types.is_large_list(type)
