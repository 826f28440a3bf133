"""A shard whose worker dies, for tests that start processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from mvl_assets.ingest.shard import ShardResult, ShardTask, ingest_shard


def ingest_shard_or_die(folder: Path, task: ShardTask) -> ShardResult:
    """Write the shard; the process of every second one is killed before it can report, the first time."""
    result = ingest_shard(task)
    mark = folder / f"{task.number}.killed"
    if task.number % 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result
