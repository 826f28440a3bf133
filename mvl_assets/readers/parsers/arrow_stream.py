"""Arrow files (arrow.apache.org, "IPC Streaming Format" and "IPC File Format"), a few rows at a time.

`datasets.Dataset.save_to_disk` writes the first, `pyarrow.feather` the second. The file is mapped, so memory holds the
rows in use and not a record batch, which may have a thousand rows with images. Rows refer to images in them
(`embedded_bytes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

from mvl_assets.readers.parsers.embedded_bytes import EmbeddedColumn, has_binary, replace_bytes
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem
from mvl_assets.readers.parsers.parquet_stream import MAX_BATCH_ROWS, reject_rest, to_dicts

_FILE_MAGIC = b"ARROW1"


def iter_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Item | RejectedItem]:
    """Yield the rows of a file as objects; a damaged file ends in a `broken_file` item.

    Args:
        path: Arrow file of either kind.
        columns: Columns to read, all by default; those that the file lacks are left out.
    """
    position = 0
    embedded: dict[str, ArrowColumn] = {}
    try:
        for group, batch in enumerate(_iter_batches(path)):
            selected = batch if columns is None else batch.select([c for c in columns if c in batch.schema.names])
            for field in selected.schema:
                if has_binary(field.type):
                    embedded.setdefault(field.name, ArrowColumn(path, field.name))
            for start in range(0, selected.num_rows, MAX_BATCH_ROWS):
                rows = selected.slice(start, MAX_BATCH_ROWS)
                rows.validate(full=True)  # damaged offsets would end the process
                for row, value in enumerate(to_dicts(rows, position), start):
                    for name, column in embedded.items():
                        value[name] = replace_bytes(value[name], column, group, row)
                    yield Item(position, value)
                    position += 1
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        yield reject_rest(position, error, "Arrow")


class ArrowColumn(EmbeddedColumn):
    """A column of an Arrow file; its groups are record batches."""

    group_name = "record batch"
    _reader: Iterator[tuple[int, pa.RecordBatch]] | None = None
    _next_group = 0

    def _iter_batches(self, group: int, max_rows: int) -> Iterator[pa.Array]:
        if self._reader is None or group < self._next_group:
            self._reader = enumerate(_iter_batches(self.path))
        for number, batch in self._reader:  # which goes on with the next record batch
            self._next_group = number + 1
            if number == group:
                yield batch.column(self.name)
                return

    def _close_file(self) -> None:
        self._reader = None


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a file; none for one that is not Arrow."""
    try:
        with pa.memory_map(str(path)) as source:
            open_source = ipc.open_file if source.read(6) == _FILE_MAGIC else ipc.open_stream
            schema = open_source(_seek_start(source)).schema
            schema.names  # noqa: B018  # decodes them, which may fail
            return schema
    except (pa.ArrowException, OSError, ValueError):
        return pa.schema([])


def _iter_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        if source.read(6) == _FILE_MAGIC:
            reader = ipc.open_file(_seek_start(source))
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
        else:
            yield from ipc.open_stream(_seek_start(source))


def _seek_start(source: pa.MemoryMappedFile) -> pa.MemoryMappedFile:
    source.seek(0)
    return source
