"""The rejects of one stage and source, replaced as a whole: what a later run answers is no reject any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa

from mvl_assets.lake.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import REJECTS, Reject
from mvl_assets.lake.table import Published

MESSAGE = 500
"""Characters of a message that are kept."""


def publish_rejects(lake: Lake, stage: str, source: str, rejects: Iterable[Reject], run_id: str) -> Published:
    """Makes `rejects` all there is of this stage and source, in one commit."""
    part = f"{stage}/{source}"
    rows = {}
    for reject in rejects:
        key = digest_hex(reject.stage, reject.source, reject.row_key, reject.request_key)
        # A server's words may hold half a character, which no table stores.
        message = reject.message[:MESSAGE].encode("utf-8", "backslashreplace").decode()
        rows[key] = {"reject_id": key, "part": part, **asdict(reject), "message": message, "run_id": run_id}
    return lake.table("rejects").publish([pa.Table.from_pylist(list(rows.values()), schema=REJECTS.columns)], part)
