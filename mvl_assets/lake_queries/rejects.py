"""Rejects of one pipeline stage and source, replaced as a whole by every run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import REJECTS
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake.table import PublishResult

MAX_MESSAGE_CHARS = 500
"""Longer messages are cut."""


def build_reject_table(rejects: Iterable[Reject], run_id: str) -> pa.Table:
    """Return rejects as rows of the table `rejects`; of equal rows rejected by one request the last is taken."""
    rows: dict[str, dict[str, object]] = {}
    for reject in rejects:
        reject_id = compute_digest(reject.stage, reject.source, reject.row_key, reject.request_key)
        # Text of a file or server may hold half a surrogate pair, which a table cannot store.
        message = reject.message[:MAX_MESSAGE_CHARS].encode("utf-8", "backslashreplace").decode()
        partition_key = format_reject_partition(reject.stage, reject.source)
        rows[reject_id] = {
            **asdict(reject),
            "reject_id": reject_id,
            "partition_key": partition_key,
            "message": message,
            "run_id": run_id,
        }
    return pa.Table.from_pylist(list(rows.values()), schema=REJECTS.columns)


def write_rejects(lake: Lake, stage: str, source: str, rejects: Iterable[Reject], run_id: str) -> UncommittedFragments:
    """Write rejects of a part of a source, for `replace_rejects` to commit; the rejects of a row are in one part."""
    batches = [build_reject_table(rejects, run_id)]
    return lake.get_table("rejects").write_fragments(batches, format_reject_partition(stage, source))


def replace_rejects(lake: Lake, stage: str, source: str, written: Sequence[UncommittedFragments]) -> PublishResult:
    """Replace all rejects of this stage and source by what `write_rejects` has written, in one commit."""
    return lake.get_table("rejects").replace_partition(written, format_reject_partition(stage, source))


def publish_rejects(lake: Lake, stage: str, source: str, rejects: Iterable[pa.Table | pa.RecordBatch]) -> PublishResult:
    """Replace all rejects of this stage and source by rows of `build_reject_table`, in one commit.

    Args:
        lake: The lake.
        stage: Pipeline stage that refused the rows.
        source: Source of the rows.
        rejects: Batches of rows of `build_reject_table`.
    """
    return lake.get_table("rejects").publish(rejects, format_reject_partition(stage, source))


def format_reject_partition(stage: str, source: str) -> str:
    """Return the partition key of the rejects of one stage and source."""
    return f"{stage}/{source}"
