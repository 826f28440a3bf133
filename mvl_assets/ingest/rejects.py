"""The rejects of one ingest, kept on disk until they are published in one commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

import pyarrow as pa

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import REJECTS, Reject
from mvl_assets.lake.scratch import scratch
from mvl_assets.lake.table import Published
from mvl_assets.lake_queries.rejects import MESSAGE, publish_rejects, reject_table

STAGE = "raw"
BATCH = 1024


class RejectSpool:
    """Collects the rejects of (stage raw, source) in a temporary file; memory holds one batch."""

    def __init__(self, source: str, run_id: str) -> None:
        self.source = source
        self.counts: Counter[str] = Counter()
        self._run_id = run_id
        self._held: list[Reject] = []
        self._stack = ExitStack()

    def __enter__(self) -> RejectSpool:
        self._path = self._stack.enter_context(scratch("rejects")) / "rejects.arrow"
        self._writer = self._stack.enter_context(pa.ipc.new_stream(str(self._path), REJECTS.columns))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, row_key: str, error: str, message: str, file: str, position: int) -> None:
        self.counts[error] += 1
        self._held.append(Reject(STAGE, self.source, row_key, error, message[:MESSAGE], file, position))
        if len(self._held) >= BATCH:
            self._spill()

    def publish(self, lake: Lake) -> Published:
        """Makes what was added all the rejects there are of this source and stage."""
        self._spill()
        self._writer.close()
        return publish_rejects(lake, STAGE, self.source, self._batches())

    def _spill(self) -> None:
        if self._held:
            self._writer.write_table(reject_table(self._held, self._run_id))
            self._held = []

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_stream(str(self._path)) as reader:
            yield from reader
