"""Failpoints around every step of storing answers: a process may end there, or the step may fail.

`python -m tests.lake.failpoints ROOT POINT WHEN TURN` stores answers and is killed at the TURN-th passage of POINT;
with a fifth argument `publish` it publishes a partition instead.
The points are the calls that touch the disk, so the product needs no code for this.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import lance
from lance.dataset import DatasetOptimizer

from mvl_assets.lake import answers as answers_module
from mvl_assets.lake import table
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.durability import durable
from mvl_assets.lake.durability.lease import FileLease
from mvl_assets.lake.lake import Lake
from tests.lake.rows import answer, pages

# Each step of opening, appending and folding, in the order in which it is taken, with the object that takes it.
POINTS: dict[str, tuple[Any, str]] = {
    "lease signed": (os, "pwrite"),
    "table made": (lance.LanceDataset, "commit"),
    "lease renewed": (FileLease, "renew"),
    "fragment written": (table, "write_fragments"),
    "commit": (lance.LanceDataset, "commit"),
    "fsync of a file": (durable, "_fsync"),
    "commit made durable": (durable.Fsyncer, "sync"),
    "fragments folded": (DatasetOptimizer, "compact_files"),
    "old versions removed": (lance.LanceDataset, "cleanup_old_versions"),
}
BATCH = 4
BATCHES = 6


@contextmanager
def failpoint(point: str, when: str, turn: int, action: Callable[[], object]) -> Iterator[None]:
    """`action` happens before or after the `turn`-th passage of `point`."""
    owner, name = POINTS[point]
    original = getattr(owner, name)
    passed = 0

    def watched(*given: Any, **named: Any) -> Any:
        nonlocal passed
        passed += 1
        if when == "before" and passed == turn:
            action()
        result = original(*given, **named)
        if when == "after" and passed == turn:
            action()
        return result

    setattr(owner, name, watched)
    try:
        yield
    finally:
        setattr(owner, name, original)


def append_all(log: AnswerLog, acked: Callable[[int], object]) -> None:
    """Stores what is missing of BATCHES times BATCH answers, folding after every second commit."""
    with mock.patch.object(answers_module, "COMMITS_PER_COMPACTION", 2), log:
        wanted = [answer(number) for number in range(BATCH * BATCHES)]
        stored = log.find_answered(a.request_key for a in wanted)
        missing = [a for a in wanted if a.request_key not in stored]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            log.append(batch)
            acked(len(batch))


def publish(lake: Lake) -> None:
    """Replaces a partition that has content."""
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "old", range(20)), pages("a", "old", range(20, 30))], "a")
    print("old", flush=True)
    table.publish([pages("a", "new", range(15))], "a")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    root, at, moment, number, *what = sys.argv[1:]
    with failpoint(at, moment, int(number), die):
        if what:
            publish(Lake(root))
        else:
            append_all(Lake(root).get_answer_log("rewritten", "drawn"), lambda count: print(count, flush=True))
    print("not reached", flush=True)
