"""Writes rows to uncommitted fragments while the caller makes the next ones."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa

from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.table import Table

_POLL_S = 0.5


class _Cancelled(Exception):
    """The rows are not wanted any more."""


class FragmentWriter:
    """A stream of rows of one partition of a table, written by a thread of its own. Memory holds two batches."""

    def __init__(self, table: Table, partition_key: str) -> None:
        self._batches: queue.Queue[pa.Table | _Cancelled | None] = queue.Queue(maxsize=1)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        self._written = self._executor.submit(table.write_fragments, self._iter_batches(), partition_key)

    def write(self, rows: pa.Table) -> None:
        """Add rows. Raises what writing the earlier ones raised."""
        self._put(rows)

    def finish(self) -> UncommittedFragments:
        """Wait until all rows are on disk."""
        self._put(None)
        written = self._written.result()
        self._executor.shutdown()
        return written

    def cancel(self) -> None:
        """Stop writing. Files that were begun are left to `mvl gc`."""
        with suppress(Exception):
            self._put(_Cancelled())
        self._executor.shutdown()

    def _put(self, item: pa.Table | _Cancelled | None) -> None:
        while True:
            if self._written.done():
                self._written.result()
            try:
                self._batches.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def _iter_batches(self) -> Iterator[pa.Table]:
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, _Cancelled):
                raise batch
            yield batch
