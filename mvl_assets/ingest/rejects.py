"""The rejects of one ingest, kept on disk until they are published in one commit."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from mvl_assets.lake.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import REJECTS, Reject
from mvl_assets.lake.table import Published

STAGE = "raw"
BATCH = 1024
MESSAGE = 500
"""Characters of a message that are kept."""


class RejectSpool:
    """Collects the rejects of (stage raw, source) in a temporary file; memory holds one batch."""

    def __init__(self, source: str, run_id: str) -> None:
        self.source = source
        self.counts: Counter[str] = Counter()
        self._run_id = run_id
        self._schema = REJECTS.columns
        self._held: list[dict[str, object]] = []

    def __enter__(self) -> RejectSpool:
        self._folder = tempfile.TemporaryDirectory(prefix="mvl-rejects-")
        self._path = Path(self._folder.name) / "rejects.arrow"
        self._writer = pa.ipc.new_stream(str(self._path), self._schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._folder.cleanup()

    def add(self, row_key: str, error: str, message: str, file: str, position: int) -> None:
        self.counts[error] += 1
        text = message[:MESSAGE].encode("utf-8", "backslashreplace").decode()
        reject = Reject(STAGE, self.source, row_key, error, text, file, position)
        self._held.append(
            {
                "reject_id": digest_hex(STAGE, self.source, row_key, None),
                "part": f"{STAGE}/{self.source}",
                **asdict(reject),
                "run_id": self._run_id,
            }
        )
        if len(self._held) >= BATCH:
            self._spill()

    def publish(self, lake: Lake) -> Published:
        """Makes what was added all the rejects there are of this source and stage."""
        self._spill()
        self._writer.close()
        return lake.table("rejects").publish(self._batches(), f"{STAGE}/{self.source}")

    def _spill(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_pylist(self._held, schema=self._schema))
            self._held = []

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_stream(str(self._path)) as reader:
            yield from reader
