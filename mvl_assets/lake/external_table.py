"""Lance tables outside the lake: those that others wrote, as a source's files, and those that are exported.

They are read a few rows at a time, in the order of the newest version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from mvl_assets.common.batches import keep_producer_errors
from mvl_assets.lake.durability.durable import Fsyncer, fsync_data_files
from mvl_assets.lake.errors import translate_disk_errors
from mvl_assets.lake.fragments import list_data_files
from mvl_assets.lake.storage import build_storage_options

IO_BUFFER_BYTES = 64 << 20
"""Bytes read ahead; Lance's own default is 2 GB."""

TableReadError = (OSError, ValueError, RuntimeError, pa.ArrowException)
"""What Lance raises for a table that it cannot read."""


def is_table(folder: Path) -> bool:
    """Return whether a folder is a Lance table."""
    return (folder / "_versions").is_dir()


def iter_batches(
    folder: Path | str, columns: Sequence[str] | None, batch_rows: int, start: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table; blobs are read into them.

    Args:
        folder: The table, a folder or a URI.
        columns: Columns to read, all by default; those that the table lacks are left out.
        batch_rows: Rows held at a time.
        start: First row.
    """
    dataset = lance.dataset(str(folder), storage_options=build_storage_options(str(folder)))
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


def write_table_fragment(uri: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> str:
    """Write rows as one fragment of a table that `commit_fragments` will make; no version of the table knows it yet.

    Returns:
        Lance's metadata of the fragment, as JSON.
    """
    batches = (batch for table in tables for batch in table.to_batches())
    with translate_disk_errors(uri), keep_producer_errors(batches) as guarded:
        fragment = lance.LanceFragment.create(
            uri,
            pa.RecordBatchReader.from_batches(schema, guarded),
            schema=schema,
            storage_options=build_storage_options(uri),
        )
    fsync_data_files(uri, list_data_files([fragment]))
    return json.dumps(fragment.to_json())


def commit_fragments(uri: str, schema: pa.Schema, fragments: Sequence[Mapping[str, Any]]) -> None:
    """Make these fragments the content of a table, in one commit, and remove all other files of it.

    A table that has them already stays as it is. There must be no other writer of it.
    """
    metadata = [lance.FragmentMetadata.from_json(json.dumps(fragment)) for fragment in fragments]
    with translate_disk_errors(uri):
        dataset = _open_if_exists(uri)
        stored = [] if dataset is None else list_data_files(f.metadata for f in dataset.get_fragments())
        if dataset is None or stored != list_data_files(metadata):
            dataset = lance.LanceDataset.commit(
                uri, lance.LanceOperation.Overwrite(schema, metadata), storage_options=build_storage_options(uri)
            )
        dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
    Fsyncer(uri).sync()


def _open_if_exists(uri: str) -> lance.LanceDataset | None:
    try:
        return lance.dataset(uri, storage_options=build_storage_options(uri))
    except (ValueError, FileNotFoundError) as error:
        if "not found" in str(error).lower():
            return None
        raise
