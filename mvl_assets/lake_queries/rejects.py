"""The rejects of one stage and source, replaced as a whole: what a later run takes in is no reject any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import REJECTS, Reject
from mvl_assets.lake.table import Published

MESSAGE = 500
"""Characters of a message that are kept."""


def reject_table(rejects: Iterable[Reject], run_id: str) -> pa.Table:
    """Rejects as rows of the table `rejects`; the same row rejected twice in one request counts once, the last time."""
    rows: dict[str, dict[str, object]] = {}
    for reject in rejects:
        key = digest_hex(reject.stage, reject.source, reject.row_key, reject.request_key)
        # A file's or a server's words may hold half a character, which no table stores.
        message = reject.message[:MESSAGE].encode("utf-8", "backslashreplace").decode()
        part = _part(reject.stage, reject.source)
        rows[key] = {**asdict(reject), "reject_id": key, "part": part, "message": message, "run_id": run_id}
    return pa.Table.from_pylist(list(rows.values()), schema=REJECTS.columns)


def publish_rejects(lake: Lake, stage: str, source: str, rejects: Iterable[pa.Table | pa.RecordBatch]) -> Published:
    """Makes `rejects` (rows of `reject_table`) all there is of this stage and source, in one commit."""
    return lake.table("rejects").publish(rejects, _part(stage, source))


def _part(stage: str, source: str) -> str:
    return f"{stage}/{source}"
