"""Parts of a run that publishes a table: shards, or a whole small source.

Each part is written in any process; then one commit for the table and one for the rejects make all of them visible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any, Generic

import pyarrow as pa

from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.rejects import replace_rejects, write_rejects
from mvl_assets.model_stage.due_requests import ROW_BATCH_SIZE
from mvl_assets.model_stage.loop import ProgressCallback, StageRun
from mvl_assets.model_stage.reask import Parsed, Resolution
from mvl_assets.model_stage.stage import RequestCounts, Subject, TableStage


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """What one run of a stage did.

    Attributes:
        table: Name of the table that was published.
        source: The source.
        requests: Requests and tokens of all models.
        input_rows: Rows of the input that requests may be sent for.
        rows: Rows that are published.
        blind: Rows made by a model that could not see the sample's images.
        rejects_by_error: Rejects by error class.
        cost: Cost in the currency of the models' prices.
        seconds: How long the run took.
        published: What publishing changed in the table.
        tally: The stage's own counts (`TableStage.tally`).
    """

    table: str
    source: str
    requests: RequestCounts
    input_rows: int
    rows: int
    blind: int
    rejects_by_error: dict[str, int]
    cost: float
    seconds: float
    published: PublishResult
    tally: Counter[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class StagePart:
    """What a run has written for one shard, or for a source that is not divided. The fields are those of `StageReport`.

    Attributes:
        shard: The shard's name.
        rows: Rows of the table, not yet visible.
        rejects: Rejects, not yet visible.
    """

    shard: str
    rows: UncommittedFragments
    rejects: UncommittedFragments
    requests: RequestCounts
    input_rows: int
    blind: int
    rejects_by_error: Counter[str]
    cost: float
    tally: Counter[tuple[Any, ...]]


def write_part(
    lake: Lake,
    stage: TableStage[Subject, Parsed],
    *,
    retry_error_classes: Collection[str] = (),
    progress: ProgressCallback | None = None,
) -> StagePart:
    """Send the requests without a stored answer, then write the rows and rejects of the stage's shard.

    The rows are derived from all stored answers, so a better parser or a moved threshold costs no request.

    Args:
        lake: The lake.
        stage: The stage.
        retry_error_classes: Error classes, or `all`, whose rejects are asked once more.
        progress: Called with the engine's progress.

    Raises:
        LeaseHeld: Another process runs this stage for this shard.
        MvlError: A model server cannot be used.
    """
    with StageRun(lake, stage, stage.run_id, retry_error_classes=retry_error_classes, progress=progress) as run:
        run.send()
        table = lake.get_table(stage.table)
        builder = _RowBuilder(stage, table.spec.columns)
        rows = table.write_fragments(builder.iter_batches(run.iter_resolved()), stage.source)
    return StagePart(
        shard=stage.shard_name,
        rows=rows,
        rejects=write_rejects(lake, stage.name, stage.source, builder.rejects, stage.run_id),
        requests=run.counts,
        input_rows=run.n_sendable_rows,
        blind=builder.n_blind,
        rejects_by_error=builder.rejects_by_error,
        cost=run.cost,
        tally=stage.tally,
    )


def publish_parts(lake: Lake, stage: TableStage[Any, Any], parts: Sequence[StagePart], seconds: float) -> StageReport:
    """Make the parts the source's content of the stage's table, and its rejects, in one commit each.

    Args:
        lake: The lake.
        stage: The stage.
        parts: The parts of all shards.
        seconds: How long the run took.
    """
    ordered_parts = sorted(parts, key=lambda part: part.shard)
    published = lake.get_table(stage.table).replace_partition([part.rows for part in ordered_parts], stage.source)
    replace_rejects(lake, stage.name, stage.source, [part.rejects for part in ordered_parts])
    rejects_by_error: Counter[str] = Counter()
    tally: Counter[tuple[Any, ...]] = Counter()
    for part in ordered_parts:
        rejects_by_error.update(part.rejects_by_error)
        tally.update(part.tally)
    return StageReport(
        table=stage.table,
        source=stage.source,
        requests=reduce(RequestCounts.__add__, (part.requests for part in ordered_parts), RequestCounts()),
        input_rows=sum(part.input_rows for part in ordered_parts),
        rows=published.n_rows,
        blind=sum(part.blind for part in ordered_parts),
        rejects_by_error=dict(rejects_by_error),
        cost=sum(part.cost for part in ordered_parts),
        seconds=seconds,
        published=published,
        tally=tally,
    )


def discard_parts(lake: Lake, stage: TableStage[Any, Any], parts: Sequence[StagePart]) -> None:
    """Remove the files of parts that will not be published."""
    lake.get_table(stage.table).discard_fragments(part.rows for part in parts)
    lake.get_table("rejects").discard_fragments(part.rejects for part in parts)


class _RowBuilder(Generic[Subject, Parsed]):
    """Makes a table's batches of resolved rows, and collects the rejects."""

    def __init__(self, stage: TableStage[Subject, Parsed], columns: pa.Schema) -> None:
        self.rejects: list[Reject] = []
        self.rejects_by_error: Counter[str] = Counter()
        self.n_blind = 0
        self._stage = stage
        self._columns = columns

    def iter_batches(self, resolved: Iterator[tuple[Subject, list[list[Resolution[Parsed]]]]]) -> Iterator[pa.Table]:
        while batch := list(islice(resolved, ROW_BATCH_SIZE)):
            rows: list[Mapping[str, Any]] = []
            for subject, resolutions in batch:
                built = self._stage.build_rows(subject, resolutions)
                rows += built.rows
                self.rejects += built.rejects
                self.rejects_by_error.update(built.errors)
            self.n_blind += sum(row["blind"] for row in rows)
            yield pa.Table.from_pylist(rows, schema=self._columns)
