"""What every row of a mixture will take in training: exact tokens, tiles and targets, on all cores, in order.

Belongs here: counting rows, and the processes that share the work. Does not: packing what was counted (`packing`), the
rules of a stage (`processing`). No torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from sys import intern
from typing import Any

from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_assets.media.image import standard_size
from mvl_training.data.chat_format import Unusable
from mvl_training.data.processing import Counts, SampleProcessor, load_tokens
from mvl_training.recipe import Recipe, StageName

PART = 4096
"""Rows one process counts at a time."""

READ = 256
"""Rows whose pictures' sizes are looked up together."""

ALONE = 16 * PART
"""Mixtures up to this size are counted in this process: starting others would take longer."""


@dataclass(frozen=True, slots=True)
class Member:
    """A sample to pack."""

    row_id: str
    counts: Counts
    category: str
    modality: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be trained on, and why."""

    row_id: str
    source: str
    position: int
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Consecutive rows: those to pack, and the others."""

    members: list[Member]
    refused: list[Refused]


def count_mixture(lake: Lake, stage: StageName, recipe: Recipe, *, processes: int | None = None) -> Iterator[Counted]:
    """All rows of `mixture/<stage>` in order, part by part, whatever the number of processes (default: by size)."""
    rows = lake.table(f"mixture/{stage}").count()
    parts = [(start, min(start + PART, rows)) for start in range(0, rows, PART)]
    if processes is None:
        processes = 1 if rows <= ALONE else len(os.sched_getaffinity(0))
    if processes == 1:
        processor = SampleProcessor.for_stage(recipe, stage, load_tokens(recipe))
        yield from (_count(lake, stage, processor, *part) for part in parts)
        return
    # Not forked: Lance's threads do not survive it.
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (lake.root, stage, recipe)) as pool:
        waiting = iter(parts)
        under_way = [pool.submit(_count_here, *part) for part in islice(waiting, 2 * processes)]
        while under_way:
            yield under_way.pop(0).result()
            under_way += [pool.submit(_count_here, *part) for part in islice(waiting, 1)]


_here: tuple[Lake, StageName, SampleProcessor]


def _begin(root: str, stage: StageName, recipe: Recipe) -> None:
    """In a process of the pool, once."""
    global _here
    _here = (Lake(root), stage, SampleProcessor.for_stage(recipe, stage, load_tokens(recipe)))


def _count_here(start: int, stop: int) -> Counted:
    return _count(*_here, start, stop)


def _count(lake: Lake, stage: StageName, processor: SampleProcessor, start: int, stop: int) -> Counted:
    counted = Counted([], [])
    for rows in views.in_batches(views.mixture_rows(lake, stage, start, stop), READ):
        sizes = _sizes(lake, processor, rows)
        for row in rows:
            try:
                counts = processor.count(row, sizes)
                counted.members.append(Member(row["row_id"], counts, intern(row["category"]), intern(row["modality"])))
            except Unusable as error:
                refused = Refused(row["row_id"], row["source"], row["position"], error.error, error.message)
                counted.refused.append(refused)
    return counted


def _sizes(lake: Lake, processor: SampleProcessor, rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Standardised (width, height) of the rows' pictures, by id."""
    known = lake.images.describe({i for row in rows for i in processor.used_pictures(row)})
    return {name: standard_size(info.width, info.height).canvas for name, info in known.items()}
