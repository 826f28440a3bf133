"""The rejects of one stage and source, replaced as a whole: what a later run takes in is no reject any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import REJECTS, Reject
from mvl_assets.lake.table import PublishResult

MAX_MESSAGE_CHARS = 500
"""Characters of a message that are kept."""


def build_reject_table(rejects: Iterable[Reject], run_id: str) -> pa.Table:
    """Rejects as rows of the table `rejects`; the same row rejected twice in one request counts once, the last time."""
    rows: dict[str, dict[str, object]] = {}
    for reject in rejects:
        reject_id = compute_digest(reject.stage, reject.source, reject.row_key, reject.request_key)
        # A file's or a server's words may hold half a character, which no table stores.
        message = reject.message[:MAX_MESSAGE_CHARS].encode("utf-8", "backslashreplace").decode()
        partition_key = _format_partition_key(reject.stage, reject.source)
        rows[reject_id] = {
            **asdict(reject),
            "reject_id": reject_id,
            "partition_key": partition_key,
            "message": message,
            "run_id": run_id,
        }
    return pa.Table.from_pylist(list(rows.values()), schema=REJECTS.columns)


def publish_rejects(lake: Lake, stage: str, source: str, rejects: Iterable[pa.Table | pa.RecordBatch]) -> PublishResult:
    """Makes `rejects` (rows of `build_reject_table`) all there is of this stage and source, in one commit."""
    return lake.get_table("rejects").publish(rejects, _format_partition_key(stage, source))


def _format_partition_key(stage: str, source: str) -> str:
    return f"{stage}/{source}"
