"""Rejects of one pipeline stage and source, replaced as a whole by every run; and what they are, for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake import sql
from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import REJECTS
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake.table import PublishResult

MAX_MESSAGE_CHARS = 500
"""Longer messages are cut."""

BATCH_ROWS = 65_536
_DISPLAYED_COLUMNS = ("stage", "source", "error", "file", "position", "message", "row_key", "request_key")


def build_reject_table(rejects: Iterable[Reject], run_id: str) -> pa.Table:
    """Return rejects as rows of the table `rejects`; of equal rows rejected by one request the last is taken."""
    rows: dict[str, dict[str, object]] = {}
    for reject in rejects:
        # Several dialogues of one answer may be dropped; a row of a file has its position in `row_key`.
        ordinal = () if reject.file is not None or reject.position is None else (reject.position,)
        reject_id = compute_digest(reject.stage, reject.source, reject.row_key, reject.request_key, *ordinal)
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


@dataclass(frozen=True, slots=True)
class RejectSummary:
    """The rejects of one stage, source and error class: how many, and the first few rows of the table `rejects`."""

    stage: str
    source: str
    error: str
    n_rows: int
    examples: list[dict[str, Any]]


def iter_rejects(
    lake: Lake, *, stage: str | None = None, sources: Sequence[str] = (), errors: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the rejects of a stage, of some sources and of some error classes; of all where none is named."""
    conditions = [
        *([sql.equals("stage", stage)] if stage else []),
        *([sql.is_in("source", sources)] if sources else []),
        *([sql.is_in("error", errors)] if errors else []),
    ]
    yield from lake.get_table("rejects").iter_rows(_DISPLAYED_COLUMNS, " AND ".join(conditions) or None)


def summarize_rejects(rejects: Iterable[dict[str, Any]], n_examples: int) -> list[RejectSummary]:
    """Return the rejects by stage, source and error class, the largest group of a source first.

    Args:
        rejects: Rows of `iter_rejects`; they are counted as they come.
        n_examples: Rows to keep of each group.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rejects:
        key = (row["stage"], row["source"], row["error"])
        counts[key] += 1
        if counts[key] <= n_examples:
            examples.setdefault(key, []).append(row)
    keys = sorted(counts, key=lambda key: (key[:2], -counts[key], key[2]))
    return [RejectSummary(*key, counts[key], examples.get(key, [])) for key in keys]


def count_rejects(lake: Lake, stage: str, source: str) -> Counter[str]:
    """Count the rejects of one stage and source by error class."""
    counts: Counter[str] = Counter()
    partition_key = format_reject_partition(stage, source)
    for batch in lake.get_table("rejects").scan(["error"], None, BATCH_ROWS, partition_key=partition_key):
        for item in batch.column(0).value_counts().to_pylist():
            counts[item["values"]] += item["counts"]
    return counts
