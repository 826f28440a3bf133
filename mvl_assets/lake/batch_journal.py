"""Requests that were handed to a server in batches and whose answers are not stored yet.

One table per answer log, `batches/{stage}/{source}`: a row per request, a partition per batch. A batch is written here
before anything of it leaves this machine, and removed once all its answers are stored, so a run that is killed at any
point knows what was sent, and a request is never in two batches. Its only writer is the holder of the log's lease.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from mvl_assets.lake.schemas.data_tables import BATCHES
from mvl_assets.lake.table import Table

# Each step of a batch makes a version; readers may still use the newest ones.
KEPT_VERSIONS = 5


@dataclass(frozen=True, slots=True)
class BatchedRequest:
    """What an answer is stored with, of a request in a batch."""

    request_key: str
    model: str
    model_revision: str
    prompt: str
    prompt_hash: str
    output_form: str | None


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """How far a batch has come.

    Attributes:
        name: Digest-like name, which the server stores with the batch.
        attempt: How often its requests were sent, this batch included.
        endpoint: The server's address, without user name and password.
        updated_at: When the batch came so far.
        file_id: The server's name of the uploaded requests; None until they are there.
        batch_id: The server's name of the batch; None until it is known to exist.
    """

    name: str
    attempt: int
    endpoint: str
    updated_at: dt.datetime
    file_id: str | None = None
    batch_id: str | None = None


_STATE_COLUMNS = ["batch", "attempt", "endpoint", "updated_at", "file_id", "batch_id"]
_REQUEST_COLUMNS = list(BatchedRequest.__slots__)


class BatchJournal:
    """The batches of one answer log that are on their way."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def list_batches(self) -> list[StoredBatch]:
        """Return the batches, the oldest first.

        Raises:
            UnknownKeyScheme: Their requests have keys of another scheme, so it is unknown which ones were sent.
        """
        self.table.require_known_keys()
        batches = []
        for name in self.table.list_partitions():
            row = next(self.table.iter_rows(_STATE_COLUMNS, batch_size=1, partition_key=name), None)
            if row is not None:
                batches.append(StoredBatch(row.pop("batch"), **row))
        return sorted(batches, key=lambda batch: batch.updated_at)

    def count_requests(self, name: str) -> int:
        """Count the requests of a batch."""
        return self.table.count(partition_key=name)

    def iter_keys(self, name: str) -> Iterator[list[str]]:
        """Yield the request keys of a batch."""
        for batch in self.table.scan(["request_key"], batch_size=8192, partition_key=name):
            yield batch.column(0).to_pylist()

    def read_requests(self, name: str) -> dict[str, BatchedRequest]:
        """Return the requests of a batch by key, in the order of its file."""
        rows = self.table.iter_rows(_REQUEST_COLUMNS, batch_size=8192, partition_key=name)
        return {row["request_key"]: BatchedRequest(**row) for row in rows}

    def save(self, batch: StoredBatch, requests: Sequence[BatchedRequest]) -> None:
        """Store a batch and its requests durably."""
        state = {name: value for name, value in asdict(batch).items() if name != "name"} | {"batch": batch.name}
        rows = pa.Table.from_pylist([asdict(request) | state for request in requests], schema=BATCHES.columns)
        self.table.publish([rows], batch.name)

    def advance(self, batch: StoredBatch, *, file_id: str | None, batch_id: str | None) -> StoredBatch:
        """Store how far a batch has come, and return it so."""
        advanced = replace(batch, file_id=file_id, batch_id=batch_id, updated_at=dt.datetime.now(dt.UTC))
        self.save(advanced, list(self.read_requests(batch.name).values()))
        return advanced

    def remove(self, name: str) -> None:
        """Forget a batch: its answers are stored, or it was never made."""
        self.table.publish((), name)
        self.table.open_writable().cleanup_old_versions(older_than=dt.timedelta(0), retain_versions=KEPT_VERSIONS)
