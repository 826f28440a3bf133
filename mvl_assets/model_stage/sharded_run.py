"""One run of a stage for a source: a small source in this process, the shards of a large one by an executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mvl_assets.config.profile import ExecutorConfig
from mvl_assets.execution.create import create_executor
from mvl_assets.execution.executor import Report
from mvl_assets.lake.durability.lease import LEASE_TTL_S
from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import resolve_local_path
from mvl_assets.model_stage.loop import ProgressCallback
from mvl_assets.model_stage.merged_progress import MergedProgress
from mvl_assets.model_stage.parts import StagePart, StageReport, discard_parts, publish_parts, write_part
from mvl_assets.model_stage.shards import Shard, split_rows
from mvl_assets.model_stage.stage import TableStage

LEASE_POLL_S = 5.0

BuildStage = Callable[[Lake], TableStage[Any, Any]]


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to work on a shard."""

    lake_root: str
    build_stage: BuildStage
    shard: Shard = field(repr=False)
    stage_name: str
    source: str
    retry_error_classes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.stage_name} {self.source}, shard {self.shard.name}"


def run_table_stage(
    lake: Lake,
    build_stage: BuildStage,
    config: ExecutorConfig,
    *,
    retry_error_classes: Collection[str] = (),
    progress: ProgressCallback | None = None,
) -> StageReport:
    """Send the requests without a stored answer, then publish the source's rows and rejects.

    Each worker sends the requests of its shard itself. When one dies its shard is started again, and goes on after the
    answers that are stored. Killed at any point and run again, the result is the same.

    Args:
        lake: The lake.
        build_stage: Returns the stage; picklable where the source is large enough to be divided.
        config: Says how large a shard is, and where shards are worked on.
        retry_error_classes: Error classes, or `all`, whose rejects are asked once more.
        progress: Called with the progress of all shards together.

    Raises:
        LeaseHeld: Another process runs this stage for this source.
        MvlError: A model server or the executor cannot be used.
    """
    started_at = time.monotonic()
    stage = build_stage(lake)
    if stage.count_rows() <= config.shard_rows:
        parts = [write_part(lake, stage, retry_error_classes=retry_error_classes, progress=progress)]
    else:
        parts = []
        try:
            for part in _iter_shard_parts(lake, stage, build_stage, config, tuple(retry_error_classes), progress):
                parts.append(part)
        except BaseException:
            discard_parts(lake, stage, parts)  # the answers stay, and the next run writes them again
            raise
    return publish_parts(lake, stage, parts, time.monotonic() - started_at)


def _iter_shard_parts(
    lake: Lake,
    stage: TableStage[Any, Any],
    build_stage: BuildStage,
    config: ExecutorConfig,
    retry_error_classes: tuple[str, ...],
    progress: ProgressCallback | None,
) -> Iterator[StagePart]:
    executor = create_executor(config)
    lake.get_table(stage.table).create()  # once, rather than by every worker
    lake.get_table("rejects").create()
    shards = split_rows(stage.iter_shard_rows(), config.shard_rows)
    merged_progress = MergedProgress(progress, {shard.name: shard.n_requests for shard in shards})
    lake_root = lake.root if "://" in lake.root else str(Path(lake.root).absolute())
    tasks = (
        ShardTask(lake_root, build_stage, shard, stage.name, stage.source, retry_error_classes) for shard in shards
    )
    with closing(
        executor.run_reporting(run_shard, tasks, lambda task, message: merged_progress.add(task.shard.name, message))
    ) as parts:
        for part in parts:
            merged_progress.finish(part.shard)
            yield part


def run_shard(task: ShardTask, report: Report) -> StagePart:
    """Write the part of one shard; the function that workers run."""
    lake = _get_lake(task.lake_root)
    # On a local disk the kernel ends a dead worker's lease at once.
    patience_s = 0.0 if resolve_local_path(task.lake_root) is not None else 1.5 * LEASE_TTL_S
    deadline = time.monotonic() + patience_s
    while True:
        stage = task.build_stage(lake)
        stage.shard = task.shard
        try:
            return write_part(lake, stage, retry_error_classes=task.retry_error_classes, progress=report)
        except LeaseHeld:
            if time.monotonic() >= deadline:
                raise
            time.sleep(LEASE_POLL_S)


@lru_cache(maxsize=1)
def _get_lake(root: str) -> Lake:
    """Return a lake that the tasks of this process share, with its key indexes."""
    return Lake(root)
