"""The rejects of one stage and source, replaced as a whole: what a later run answers is no reject any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa

from mvl_assets.lake.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import Reject
from mvl_assets.lake.table import Published


def publish_rejects(lake: Lake, stage: str, source: str, rejects: Iterable[Reject], run_id: str) -> Published:
    """Makes `rejects` all there is of this stage and source, in one commit."""
    table = lake.table("rejects")
    part = f"{stage}/{source}"
    rows = {}
    for reject in rejects:
        key = digest_hex(reject.stage, reject.source, reject.row_key, reject.request_key)
        rows[key] = {"reject_id": key, "part": part, **asdict(reject), "run_id": run_id}
    columns = pa.schema([table.schema.field(name) for name in table.spec.columns.names])
    return table.publish([pa.Table.from_pylist(list(rows.values()), schema=columns)], part)
