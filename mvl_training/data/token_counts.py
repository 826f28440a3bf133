"""Exact counts of tokens, tiles and loss tokens for every row of a mixture, on all cores, in order. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from sys import intern
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.rejects import RejectError
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_assets.media.image import compute_standard_size
from mvl_training.data.processing import SampleCost, SampleProcessor, load_tokenizer
from mvl_training.recipe import Recipe

CHUNK_ROWS = 4096
"""Rows that one process counts at a time."""

READ_BATCH_ROWS = 256
"""Rows whose image sizes are looked up together."""

MAX_SINGLE_PROCESS_ROWS = 16 * CHUNK_ROWS
"""Smaller mixtures are counted in this process: starting others would take longer."""


@dataclass(frozen=True, slots=True)
class PackableSample:
    """A sample to pack."""

    row_id: str
    cost: SampleCost
    category: str
    modality: str


@dataclass(frozen=True, slots=True)
class RejectedMixtureRow:
    """A row that cannot be trained on.

    Attributes:
        row_id: Id of the mixture row.
        source: Source of the sample.
        position: Position of the sample in its source.
        error: Error class in snake_case.
        message: What is wrong, in one line.
    """

    row_id: str
    source: str
    position: int
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class CountedChunk:
    """Consecutive rows, counted: those to pack, and the rejected ones."""

    samples: list[PackableSample]
    rejects: list[RejectedMixtureRow]


def count_mixture(
    lake: Lake, stage: TrainingStage, recipe: Recipe, *, n_processes: int | None = None
) -> Iterator[CountedChunk]:
    """Count all rows of `mixture/<stage>`, chunk by chunk, in order, whatever the number of processes.

    Args:
        lake: Lake with the mixture.
        stage: The training stage.
        recipe: Says how the stage tokenises and tiles.
        n_processes: Default: one for a small mixture, else as many as there are cores.
    """
    n_rows = lake.get_table(f"mixture/{stage}").count()
    row_ranges = [(start, min(start + CHUNK_ROWS, n_rows)) for start in range(0, n_rows, CHUNK_ROWS)]
    if n_processes is None:
        n_processes = 1 if n_rows <= MAX_SINGLE_PROCESS_ROWS else len(os.sched_getaffinity(0))
    if n_processes == 1:
        processor = SampleProcessor.for_stage(recipe, stage, load_tokenizer(recipe))
        yield from (_count_rows(lake, stage, processor, *row_range) for row_range in row_ranges)
        return
    # Spawned: Lance's threads do not survive a fork.
    with ProcessPoolExecutor(n_processes, get_context("spawn"), _init_worker, (lake.root, stage, recipe)) as pool:
        pending_ranges = iter(row_ranges)
        futures = [pool.submit(_count_in_worker, *row_range) for row_range in islice(pending_ranges, 2 * n_processes)]
        while futures:
            yield futures.pop(0).result()
            futures += [pool.submit(_count_in_worker, *row_range) for row_range in islice(pending_ranges, 1)]


_worker_state: tuple[Lake, TrainingStage, SampleProcessor]


def _init_worker(root: str, stage: TrainingStage, recipe: Recipe) -> None:
    """Prepare a process of the pool; called once in each."""
    global _worker_state
    _worker_state = (Lake(root), stage, SampleProcessor.for_stage(recipe, stage, load_tokenizer(recipe)))


def _count_in_worker(start: int, stop: int) -> CountedChunk:
    return _count_rows(*_worker_state, start, stop)


def _count_rows(lake: Lake, stage: TrainingStage, processor: SampleProcessor, start: int, stop: int) -> CountedChunk:
    chunk = CountedChunk([], [])
    for rows in iter_batches(views.iter_mixture_rows(lake, stage, start, stop), READ_BATCH_ROWS):
        sizes = _read_image_sizes(lake, processor, rows)
        for row in rows:
            try:
                cost = processor.compute_cost(row, sizes)
                chunk.samples.append(
                    PackableSample(row["row_id"], cost, intern(row["category"]), intern(row["modality"]))
                )
            except RejectError as error:
                reject = RejectedMixtureRow(row["row_id"], row["source"], row["position"], error.code, error.message)
                chunk.rejects.append(reject)
    return chunk


def _read_image_sizes(
    lake: Lake, processor: SampleProcessor, rows: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[int, int]]:
    """Return the standardised (width, height) of the rows' images, by id."""
    image_infos = lake.images.read_properties({i for row in rows for i in processor.select_image_ids(row)})
    return {image_id: compute_standard_size(info.width, info.height).canvas for image_id, info in image_infos.items()}
