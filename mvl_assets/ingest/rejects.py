"""The rejects of one ingest, spooled to disk until they are published in one commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

import pyarrow as pa

from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import REJECTS
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.rejects import MAX_MESSAGE_CHARS, build_reject_table, publish_rejects
from mvl_assets.stages import RAW

BATCH_ROWS = 1024


class RejectSpool:
    """Collects the rejects of one source in a temporary file; memory holds one batch."""

    def __init__(self, source: str, run_id: str) -> None:
        self.source = source
        self.counts: Counter[str] = Counter()
        self._run_id = run_id
        self._buffer: list[Reject] = []
        self._stack = ExitStack()

    def __enter__(self) -> RejectSpool:
        self._path = self._stack.enter_context(create_scratch_dir("rejects")) / "rejects.arrow"
        self._writer = self._stack.enter_context(pa.ipc.new_stream(str(self._path), REJECTS.columns))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, row_key: str, error: str, message: str, file: str, position: int) -> None:
        """Add one reject.

        Args:
            row_key: Sample id, or another digest where the row has none.
            error: Class of the error.
            message: What is wrong with the row; cut to `MAX_MESSAGE_CHARS`.
            file: File, relative to the source's folder.
            position: Position of the row in the file, from 0.
        """
        self.counts[error] += 1
        self._buffer.append(Reject(RAW.name, self.source, row_key, error, message[:MAX_MESSAGE_CHARS], file, position))
        if len(self._buffer) >= BATCH_ROWS:
            self._flush()

    def publish(self, lake: Lake) -> PublishResult:
        """Replace the rejects of this source and stage by those added."""
        self._flush()
        self._writer.close()
        return publish_rejects(lake, RAW.name, self.source, self._iter_batches())

    def _flush(self) -> None:
        if self._buffer:
            self._writer.write_table(build_reject_table(self._buffer, self._run_id))
            self._buffer = []

    def _iter_batches(self) -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_stream(str(self._path)) as reader:
            yield from reader
