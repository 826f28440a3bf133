"""Exact counts of tokens, tiles and loss tokens for every row of a mixture, on all cores, in order. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from sys import intern

from mvl_assets.common.rejects import RejectError
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.execution.result_order import iter_in_order
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.row_addresses import RowAddresses, open_mixture_addresses, read_located_rows
from mvl_assets.media.image import compute_standard_size
from mvl_training.data.processing import SampleCost, SampleProcessor, load_tokenizer
from mvl_training.recipe import Recipe

CHUNK_ROWS = 4096
"""Rows that one process counts at a time."""

MAX_SINGLE_PROCESS_ROWS = 16 * CHUNK_ROWS
"""Smaller mixtures are counted in this process: starting others would take longer."""


@dataclass(frozen=True, slots=True)
class CountedSample:
    """A sample that can be trained on, and its counts."""

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
class ChunkTask:
    """The task of counting consecutive rows: those from position `start`, which lie at `addresses`."""

    lake_address: str
    stage: TrainingStage
    recipe: Recipe
    start: int
    addresses: RowAddresses

    def __str__(self) -> str:
        return f"counting mixture/{self.stage} from row {self.start}"


@dataclass(frozen=True, slots=True)
class CountedChunk:
    """Consecutive rows from position `start`, counted: those that can be trained on, and the rejected ones."""

    start: int
    samples: list[CountedSample]
    rejects: list[RejectedMixtureRow]

    @property
    def stop(self) -> int:
        """Position after the last row."""
        return self.start + len(self.samples) + len(self.rejects)


def count_mixture(
    lake: Lake, stage: TrainingStage, recipe: Recipe, *, executor: Executor | None = None
) -> Iterator[CountedChunk]:
    """Count all rows of `mixture/<stage>`, chunk by chunk, in order, whatever runs them.

    Image sizes are read as columns and texts by address, so that no process holds an index of all keys.

    Args:
        lake: Lake with the mixture.
        stage: The training stage.
        recipe: Says how the stage tokenises and tiles.
        executor: Runs the chunks of a mixture that is not small; default: all cores of this machine.

    Raises:
        LakeError: A sample or rewrite of the mixture is not in the lake.
    """
    n_rows = lake.get_table(f"mixture/{stage}").count()
    if n_rows <= MAX_SINGLE_PROCESS_ROWS:
        executor = ProcessExecutor(1)
    with open_mixture_addresses(lake, stage, CHUNK_ROWS) as book:
        book.require_complete()
        tasks = (
            ChunkTask(lake.address, stage, recipe, index * CHUNK_ROWS, book.read(index, index + 1))
            for index in range(-(-n_rows // CHUNK_ROWS))
        )
        with closing((executor or ProcessExecutor()).run(count_chunk, tasks)) as chunks:
            yield from iter_in_order(chunks, lambda chunk: (chunk.start, chunk.stop))


def count_chunk(task: ChunkTask) -> CountedChunk:
    """Count consecutive rows of a mixture."""
    processor = _get_processor(task.recipe, task.stage)
    rows = read_located_rows(Lake(task.lake_address).snapshot(), task.addresses)
    images = task.addresses.images.select(["image_id", "width", "height"]).to_pylist()
    sizes = {image["image_id"]: compute_standard_size(image["width"], image["height"]).canvas for image in images}
    chunk = CountedChunk(task.start, [], [])
    for expected_position, row in enumerate(rows, task.start):
        if row["ordinal"] != expected_position:
            raise ValueError(f"mixture position {row['ordinal']} where {expected_position} was expected")
        try:
            cost = processor.compute_cost(row, sizes)
            chunk.samples.append(CountedSample(row["row_id"], cost, intern(row["category"]), intern(row["modality"])))
        except RejectError as error:
            reject = RejectedMixtureRow(row["row_id"], row["source"], row["ordinal"], error.code, error.message)
            chunk.rejects.append(reject)
    return chunk


_last_processor: tuple[Recipe, TrainingStage, SampleProcessor] | None = None


def _get_processor(recipe: Recipe, stage: TrainingStage) -> SampleProcessor:
    """Return the processor of a stage; a process keeps the last, because loading a tokenizer takes seconds."""
    global _last_processor
    if _last_processor is None or _last_processor[:2] != (recipe, stage):
        _last_processor = (recipe, stage, SampleProcessor.for_stage(recipe, stage, load_tokenizer(recipe)))
    return _last_processor[2]
