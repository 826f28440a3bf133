"""A folder that is a Lance table, row by row; rows refer to the bytes in them (`embedded_bytes`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from mvl_assets.lake import external_table
from mvl_assets.readers.parsers.embedded_bytes import EmbeddedColumn, has_binary, replace_bytes
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem
from mvl_assets.readers.parsers.parquet_stream import MAX_BATCH_ROWS, reject_rest, to_dicts

GROUP_ROWS = 4096
"""Rows that are scanned in one go when their images are read."""


def iter_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Item | RejectedItem]:
    """Yield the rows of a table as objects; a damaged one ends in a `broken_file` item."""
    position = 0
    embedded: dict[str, LanceColumn] = {}
    try:
        for batch in external_table.iter_batches(folder, columns, MAX_BATCH_ROWS):
            for field in batch.schema:
                if has_binary(field.type):
                    embedded.setdefault(field.name, LanceColumn(folder, field.name))
            for value in to_dicts(batch, position):
                for name, column in embedded.items():
                    value[name] = replace_bytes(value[name], column, *divmod(position, GROUP_ROWS))
                yield Item(position, value)
                position += 1
    except BaseException as error:
        # Lance ends some damage in a panic, which is no `Exception`.
        if not isinstance(error, external_table.TableReadError) and type(error).__name__ != "PanicException":
            raise
        yield reject_rest(position, error, "Lance")


class LanceColumn(EmbeddedColumn):
    """A column of a Lance table; its groups are `GROUP_ROWS` rows each."""

    group_name = f"group of {GROUP_ROWS} rows"

    def _iter_batches(self, group: int, max_rows: int) -> Iterator[pa.Array]:
        start = group * GROUP_ROWS
        for batch in external_table.iter_batches(self.path, [self.name], min(max_rows, MAX_BATCH_ROWS), start):
            yield batch.column(self.name)

    def _close_file(self) -> None:
        """Lance's scanner ends with its batches."""
