"""Ingest of one source's files into the tables `images`, `samples` and `rejects`.

This process reads the rows once, in order, gives them ids, and cuts them into shards. A shard decodes images and writes
fragments (`shard`), here or in a worker process; this process then commits them: images first, then the samples that
refer to them, the rejects last and in one commit. Everything written is identified by its content, so a run that was
killed anywhere is simply run again, and loses the shards that were not committed.

A sample whose content changed becomes a new revision. A sample that is no longer in the files is withdrawn by a
revision without content. A row that is still there but cannot be read now becomes a reject and keeps the revision it
had; while a file cannot be read to its end, nothing is withdrawn, because the rows after the break are not known to be
gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mvl_assets.common.batches import iter_batches
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.execution.executor import Executor
from mvl_assets.ingest.existing import ExistingSamples
from mvl_assets.ingest.rejects import RejectSpool
from mvl_assets.ingest.row_numbering import RowNumbering, Selection, select_rows
from mvl_assets.ingest.sample_rows import build_withdrawn_table
from mvl_assets.ingest.shard import (
    SHARD_IMAGE_BYTES,
    SHARD_ROWS,
    WRITE_ROWS,
    ShardContext,
    ShardResult,
    ShardRow,
    ShardTask,
    ShardWriter,
    ingest_shard,
)
from mvl_assets.lake.durability.locks import acquire_ingest_lock, acquire_source_lock
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.repeated_keys import delete_repeated_keys
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake.table import ROWS_PER_FILE
from mvl_assets.lake_queries.removal.tombstones import PURGED_ERROR_CLASS, load_tombstones
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE
from mvl_assets.readers.registry import get_key_reader, get_reader
from mvl_assets.readers.sample import RejectedRow, Sample

BATCH_ROWS = 1024
BATCH_BYTES = 8 << 20
"""Rows, and bytes that they hold in memory, that are looked up in the lake at once."""

SHARD_BYTES = 128 << 20
SHARD_IMAGES = 65_536
"""Limits of a shard that is sent to a worker process, besides `SHARD_ROWS` and `SHARD_IMAGE_BYTES`: bytes that its rows
hold in memory, which are text, and images that the rows refer to."""

MAX_SMALL_FRAGMENTS = 8
"""Fragments of a source's samples beyond those that full ones would be, before they are compacted."""

ProgressFn = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Result of an ingest.

    `n_rows` counts the rows read (those the limit selects), `reject_counts` rejects by error class. `data_version`
    covers all versions of the source's samples.
    """

    n_rows: int
    n_new: int
    n_changed: int
    n_withdrawn: int
    reject_counts: dict[str, int]
    n_new_images: int
    new_image_bytes: int
    duration_s: float
    data_version: str


def ingest_source(
    lake: Lake,
    source: SourceSpec,
    root: Path,
    *,
    run_id: str,
    limit: int | None = None,
    executor: Executor | None = None,
    progress: ProgressFn | None = None,
) -> IngestReport:
    """Bring the lake up to date with the files below `root`. A second call changes nothing.

    Purged samples become rejects; a source that was purged as a whole is not read.

    Args:
        lake: The lake to write to.
        source: The source.
        root: Folder of its files.
        run_id: Id of the run, stored with every row.
        limit: Number of rows to select, those with the smallest ids; only their images are decoded.
        executor: Works on several shards at a time; None works on one after the other in this process.
        progress: Called after each commit with the number of rows done.

    Raises:
        SourceError: The source as a whole cannot be read.
        LeaseHeld: Data is being removed from the lake, or another process ingests the source.
    """
    started_at = time.monotonic()
    if not root.is_dir():
        raise SourceError(
            source.slug,
            f"the folder {root} does not exist",
            hint=f"run `mvl demo-data` for drawn data, or put the source's files into {root}",
        )
    read_rows, iter_keys = get_reader(source.format), get_key_reader(source.format)
    with (
        acquire_ingest_lock(lake),
        acquire_source_lock(lake, source.slug),
        RejectSpool(source.slug, run_id) as rejects,
    ):
        purged = load_tombstones(lake, source.slug)
        run = _IngestRun(lake, ShardContext(lake.root, source, run_id, purged), rejects, progress)
        if purged.is_whole_source:
            rejects.add(source.slug, PURGED_ERROR_CLASS, purged.reason, "", 0)
        else:
            selection = None if limit is None else select_rows(source.slug, iter_keys(source, root), limit)
            run.store_rows(read_rows(source, root), selection, executor)
            if not run.has_rows:
                raise SourceError(
                    source.slug,
                    f"the files in {root} hold no rows",
                    hint=f"the format `{source.format}` must fit the files; `mvl purge` removes a source",
                )
        run.mark_withdrawn()
        rejects.publish(lake)
        run.compact()
    return IngestReport(
        n_rows=run.n_rows,
        n_new=run.n_new,
        n_changed=run.n_changed,
        n_withdrawn=run.n_withdrawn,
        reject_counts=dict(rejects.counts),
        n_new_images=run.n_new_images,
        new_image_bytes=run.new_image_bytes,
        duration_s=time.monotonic() - started_at,
        data_version=lake.get_table(SAMPLES.name).compute_data_version(source.slug),
    )


class _IngestRun:
    """The driver of an ingest: reads, cuts, and commits."""

    def __init__(self, lake: Lake, context: ShardContext, rejects: RejectSpool, progress: ProgressFn | None) -> None:
        self.n_rows = self.n_new = self.n_changed = self.n_withdrawn = self.n_new_images = self.new_image_bytes = 0
        self._lake = lake
        self._context = context
        self._slug = context.source.slug
        self._rejects = rejects
        self._progress = progress
        self._numbering = RowNumbering(self._slug)
        self._existing = ExistingSamples(lake, self._slug)
        self._has_unreadable_file = False
        self._n_broken = self._n_selected = self._n_done = 0

    @property
    def has_rows(self) -> bool:
        """Whether the files hold any row, selected or not."""
        return self._numbering.n_rows > 0

    def store_rows(
        self, rows: Iterator[Sample | RejectedRow], selection: Selection | None, executor: Executor | None
    ) -> None:
        """Store the selected rows, shard by shard.

        Raises:
            SourceError: The files changed after the rows were selected.
        """
        shard_rows = self._iter_shard_rows(rows, selection)
        if executor is None:
            for result in self._iter_own_shards(shard_rows):
                self._store_shard(result)
        else:
            n_shards = 0
            with closing(executor.run(ingest_shard, self._iter_tasks(shard_rows))) as results:
                for result in results:
                    n_shards += 1
                    self._store_shard(result)
            if n_shards > 1:
                self._delete_image_copies()
        # Of a file that breaks off, the keys may be readable beyond the place where the rows are not.
        if selection is not None and not (self._n_broken or self._n_selected == selection.n_rows):
            raise SourceError(self._slug, "the files changed while they were read", hint="run again")

    def mark_withdrawn(self) -> None:
        """Withdraw the samples that are no longer in the files."""
        if self._has_unreadable_file:
            return
        table = self._lake.get_table(SAMPLES.name)
        missing = ((sample_id, version.revision + 1) for sample_id, version in self._existing.iter_missing())
        written = [
            table.write_fragments([build_withdrawn_table(rows, self._slug, self._context.run_id)], self._slug)
            for rows in iter_batches(missing, WRITE_ROWS)
        ]
        table.append_fragments(written)
        self.n_withdrawn = sum(part.n_rows for part in written)

    def compact(self) -> None:
        """Rewrite the source's samples in large files if they are in many small ones."""
        table = self._lake.get_table(SAMPLES.name)
        if not table.exists():
            return
        own, _ = table.find_fragments(table.open(), self._slug)
        n_full = sum(fragment.physical_rows for fragment in own) // ROWS_PER_FILE
        if len(own) > 2 * n_full + MAX_SMALL_FRAGMENTS:
            table.compact_partition(self._slug)

    def _iter_shard_rows(self, rows: Iterator[Sample | RejectedRow], selection: Selection | None) -> Iterator[ShardRow]:
        """Yield the selected samples with their ids, and note the rejects."""
        for batch in _iter_row_batches(rows):
            samples = []
            sample_ids = self._numbering.generate_ids(batch)
            self._existing.mark_present(sample_ids)
            for row, sample_id in zip(batch, sample_ids, strict=True):
                is_broken = isinstance(row, RejectedRow) and row.error == BROKEN_FILE
                if is_broken:
                    self._has_unreadable_file = True
                    self._n_broken += 1
                elif selection is not None and not selection.contains(sample_id):
                    continue
                else:
                    self._n_selected += 1
                self.n_rows += 1
                if isinstance(row, RejectedRow):
                    self._rejects.add(sample_id, row.error, row.message, row.file, row.position)
                else:
                    samples.append((row, sample_id))
            versions = self._existing.lookup([sample_id for _, sample_id in samples])
            for (sample, sample_id), version in zip(samples, versions, strict=True):
                yield ShardRow(sample, sample_id, version)

    def _iter_own_shards(self, rows: Iterator[ShardRow]) -> Iterator[ShardResult]:
        """Work on the shards in this process, which holds a few batches of rows and images."""
        while (first := next(rows, None)) is not None:
            writer = ShardWriter(self._context, self._lake)
            try:
                writer.add_row(first)
                while not writer.is_full and (row := next(rows, None)) is not None:
                    writer.add_row(row)
                result = writer.finish()
            except BaseException:
                writer.cancel()
                raise
            yield result

    def _iter_tasks(self, rows: Iterator[ShardRow]) -> Iterator[ShardTask]:
        number = n_bytes = n_images = image_bytes = 0
        shard: list[ShardRow] = []
        for row in rows:
            shard.append(row)
            n_bytes += _measure_bytes(row.sample)
            n_images += len(row.sample.images)
            image_bytes += sum([image.estimate_bytes() for image in row.sample.images])
            is_heavy = n_bytes >= SHARD_BYTES or image_bytes >= SHARD_IMAGE_BYTES
            if is_heavy or len(shard) >= SHARD_ROWS or n_images >= SHARD_IMAGES:
                yield ShardTask(number, self._context, shard)
                number, n_bytes, n_images, image_bytes, shard = number + 1, 0, 0, 0, []
        if shard:
            yield ShardTask(number, self._context, shard)

    def _delete_image_copies(self) -> None:
        """Delete images that two shards have stored which were worked on at the same time."""
        images = self._lake.get_images(self._slug)
        image_ids = delete_repeated_keys(images.table, images.index, self._slug)
        sizes = images.read_sizes(image_ids)
        self.n_new_images -= len(image_ids)
        self.new_image_bytes -= sum(sizes[image_id] for image_id in image_ids)

    def _store_shard(self, result: ShardResult) -> None:
        if result.images is not None:
            self._lake.get_images(self._slug).table.append_fragments([result.images])
        if result.samples is not None:
            self._lake.get_table(SAMPLES.name).append_fragments([result.samples])
        for reject in result.rejects:
            self._rejects.add(*reject)
        # A purged row may have moved to the place, and so the id, of a sample that is elsewhere now or gone.
        self._existing.mark_present(result.purged_ids, is_present=False)
        self.n_new += result.n_new
        self.n_changed += result.n_changed
        self.n_new_images += result.n_images
        self.new_image_bytes += result.image_bytes
        self._n_done += result.n_rows
        if self._progress is not None:
            self._progress(self._n_done)


def _iter_row_batches(rows: Iterator[Sample | RejectedRow]) -> Iterator[list[Sample | RejectedRow]]:
    """Yield lists of at most `BATCH_ROWS` rows and, but for the last row, `BATCH_BYTES`."""
    batch: list[Sample | RejectedRow] = []
    n_bytes = 0
    for row in rows:
        batch.append(row)
        n_bytes += _measure_bytes(row) if isinstance(row, Sample) else 0
        if len(batch) >= BATCH_ROWS or n_bytes >= BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def _measure_bytes(sample: Sample) -> int:
    """Return about how many bytes a row holds in memory: its text, and images that were read with it (base64)."""
    return sample.count_chars() + sum([len(image.data) for image in sample.images if image.data is not None])
