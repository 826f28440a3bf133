"""Parquet files that must have certain columns: the file is refused as a whole, by name, when it has not.

Belongs here: which columns are read and how many rows at a time. Reading them is `parquet_stream`'s work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.readers import parquet_stream
from mvl_assets.readers.json_stream import BROKEN_FILE, BadItem, Item

BATCH_BYTES = 64 << 20
"""What the rows in hand may weigh by the file's own account; a single row may be heavier."""

Columns = Sequence[tuple[str, ...]]
"""Columns that a file needs. Each is a tuple of the names it goes by; the first that the file has is taken."""


def rows(
    path: Path, needed: Columns, also: Sequence[str] = (), only: Sequence[str] | None = None
) -> Iterator[Item | BadItem]:
    """The rows of a file with the columns `needed` (under the first of their names) and `also` where it has them.

    A file without one of them is one `broken_file` item that names the columns it has. `only` reads no more than these
    of the columns, still asking for all, and as many rows at a time, so that damage ends both readings alike.
    """
    try:
        with pq.ParquetFile(path) as file:
            names, weight = file.schema_arrow.names, _weight(file.metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield BadItem(0, BROKEN_FILE, f"not readable as Parquet: {str(error).splitlines()[0][:300]}")
        return
    chosen = {column[0]: next((name for name in column if name in names), None) for column in needed}
    missing = [" or ".join(column) for column in needed if chosen[column[0]] is None]
    if missing:
        yield BadItem(0, BROKEN_FILE, f"has the columns {', '.join(names)[:300]}, but not {', '.join(missing)}")
        return
    taken = {found: wanted for wanted, found in chosen.items() if found is not None}
    taken |= {name: name for name in also if name in names}
    at_a_time = _rows_at_a_time(weight)
    if only is not None:
        taken = {found: wanted for found, wanted in taken.items() if wanted in only}
    for item in parquet_stream.rows(path, tuple(taken), at_a_time):
        if isinstance(item, Item):
            item = Item(item.position, {taken[name]: value for name, value in item.value.items()})
        yield item


def _weight(footer: pq.FileMetaData) -> float:
    """Bytes of the heaviest rows by the footer's account. Of whole row groups: pyarrow 26 ends the process, instead of
    raising, when it is asked for one column of a group whose statistics are damaged."""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    return max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1.0)


def _rows_at_a_time(weight: float) -> int:
    """As many rows as `parquet_stream` takes, fewer where the footer says that rows are heavy."""
    return max(1, min(parquet_stream.ROWS, int(BATCH_BYTES / max(1.0, weight))))
