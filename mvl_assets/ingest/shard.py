"""One shard of an ingest: rows become fragments of `images` and `samples` that the driver of the ingest commits.

Runs in the driver's process, or in another one, also of another machine that has the source's files at the same path.
It reads from the lake only which images the source has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from mvl_assets.common.rejects import RejectError
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.ingest.existing import SampleVersion
from mvl_assets.ingest.fragment_writer import FragmentWriter
from mvl_assets.ingest.images import ImageBatch, PendingDecodes
from mvl_assets.ingest.sample_rows import Content, NewVersion, build_content, build_version_table
from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake_queries.removal.tombstones import PURGED_ERROR_CLASS, Tombstones
from mvl_assets.readers.sample import Sample

SHARD_ROWS = 65_536
SHARD_IMAGE_BYTES = 4 << 30
"""Limits of a shard, which is what a kill can lose: rows, and bytes of the images written for them."""

MAX_PENDING_IMAGE_BYTES = 64 << 20
MAX_PENDING_ROWS = 512
WRITE_ROWS = 4096
WRITE_CHARS = 32 << 20
"""Limits of the buffers: images and the rows that use them (memory holds a few times that, because some are decoded
while others are written), then rows alone."""


@dataclass(frozen=True, slots=True)
class ShardContext:
    """What all shards of an ingest share."""

    lake_root: str
    source: SourceSpec
    run_id: str
    purged: Tombstones


class ShardRow(msgspec.Struct, frozen=True, gc=False):
    """A row with its id, and the newest version of it in the lake."""

    sample: Sample
    sample_id: str
    existing: SampleVersion | None


class ShardReject(NamedTuple):
    """A row that could not be used; arguments of `RejectSpool.add`."""

    row_key: str
    error: str
    message: str
    file: str
    position: int


@dataclass(slots=True)
class ShardResult:
    """What a shard wrote, and what became of its rows."""

    n_rows: int = 0
    n_new: int = 0
    n_changed: int = 0
    n_images: int = 0
    image_bytes: int = 0
    rejects: list[ShardReject] = field(default_factory=list)
    purged_ids: list[str] = field(default_factory=list)
    images: UncommittedFragments | None = None
    samples: UncommittedFragments | None = None


class _PendingSample(msgspec.Struct, frozen=True, gc=False):
    """A row whose images have ids but may not be decoded yet."""

    row: ShardRow
    content: Content
    n_chars: int


class ShardWriter:
    """Takes rows through three buffers (`_pending_decode`, `_decoding`, `_pending_rows`) into fragments."""

    def __init__(self, context: ShardContext, lake: Lake) -> None:
        self._context = context
        self._lake = lake
        self._images = ImageBatch(lake, context.source.slug)
        self._writer: FragmentWriter | None = None
        self._result = ShardResult()
        self._pending_decode: list[_PendingSample] = []
        self._decoding: tuple[list[_PendingSample], PendingDecodes] = ([], {})
        self._pending_rows: list[NewVersion] = []
        self._decode_chars = self._row_chars = 0

    @property
    def is_full(self) -> bool:
        """Whether the shard has reached its limits."""
        return self._result.n_rows >= SHARD_ROWS or self._images.written_bytes >= SHARD_IMAGE_BYTES

    def add_row(self, row: ShardRow) -> None:
        """Take one row."""
        self._result.n_rows += 1
        sample = row.sample
        frame_times_s: list[float] | None = None
        try:
            if sample.video is not None:
                image_ids, frame_times_s = self._images.add_video(sample.video)
            else:
                image_ids = self._images.add_images(sample) if sample.images else []
        except RejectError as error:
            self._add_reject(row, error.code, error.message)
            return
        content = build_content(sample, image_ids, frame_times_s, self._context.source.license)
        purged = self._context.purged
        has_native_id = sample.native_id is not None
        if purged and purged.matches(row.sample_id, msgspec.to_builtins(content), has_native_id=has_native_id):
            self._result.purged_ids.append(row.sample_id)
            self._add_reject(row, PURGED_ERROR_CLASS, purged.reason)
            return
        n_chars = sample.count_chars()
        self._pending_decode.append(_PendingSample(row, content, n_chars))
        self._decode_chars += n_chars
        is_heavy = self._images.pending_bytes >= MAX_PENDING_IMAGE_BYTES or self._decode_chars >= WRITE_CHARS
        if is_heavy or len(self._pending_decode) >= MAX_PENDING_ROWS:
            self._submit_decodes()

    def finish(self) -> ShardResult:
        """Write what is buffered and return the result."""
        self._submit_decodes()
        self._write_decoded()
        self._write_rows()
        result = self._result
        result.images = self._images.finish()
        result.n_images, result.image_bytes = self._images.n_written, self._images.written_bytes
        if self._writer is not None:
            result.samples = self._writer.finish()
        return result

    def cancel(self) -> None:
        """Stop the threads. What was written is left to `mvl gc`."""
        self._images.cancel()
        if self._writer is not None:
            self._writer.cancel()

    def _submit_decodes(self) -> None:
        """Write the decoded images while threads decode those of the rows that came since."""
        is_heavy = self._images.pending_bytes > 2 * MAX_PENDING_IMAGE_BYTES
        batch = (self._pending_decode, self._images.submit_decodes())
        self._pending_decode = []
        self._decode_chars = 0
        self._write_decoded()
        self._decoding = batch
        if is_heavy:  # keep one such batch in memory, not two
            self._write_decoded()

    def _write_decoded(self) -> None:
        pending_samples, decodes = self._decoding
        self._decoding = ([], {})
        row_image_ids = (pending.content.image_ids for pending in pending_samples)
        errors = self._images.write_images(decodes, row_image_ids) if decodes else {}
        for pending in pending_samples:
            if not (errors and self._reject_bad_image(pending, errors)):
                self._add_version(pending)
        if len(self._pending_rows) >= WRITE_ROWS or self._row_chars >= WRITE_CHARS:
            self._write_rows()

    def _add_version(self, pending: _PendingSample) -> None:
        """Take the row for writing if the lake lacks this version of it."""
        sample, existing, content = pending.row.sample, pending.row.existing, pending.content
        content_hash = content.compute_hash()
        revision = 1
        if existing is None:
            self._result.n_new += 1
        elif existing.withdrawn or existing.content_hash != content_hash:
            self._result.n_changed += 1
            revision = existing.revision + 1
        else:
            return
        image_names: Sequence[str | None] = ()
        if content.image_ids:
            image_names = [image.name for image in sample.images] or [None] * len(content.image_ids)
            sample = msgspec.structs.replace(sample, images=(), video=None)
        version = NewVersion(sample, image_names, pending.row.sample_id, revision, content, content_hash)
        self._pending_rows.append(version)
        self._row_chars += pending.n_chars

    def _reject_bad_image(self, pending: _PendingSample, errors: dict[str, Any]) -> bool:
        """Reject the row if one of its images is bad; return whether it was."""
        image_ids = pending.content.image_ids
        image_index = next((index for index, image_id in enumerate(image_ids) if image_id in errors), None)
        if image_index is None:
            return False
        error, images = errors[image_ids[image_index]], pending.row.sample.images
        name = images[image_index].name if images else f"frame {image_index}"
        self._add_reject(pending.row, error.code, f"{name}: {error.message}")
        return True

    def _add_reject(self, row: ShardRow, error: str, message: str) -> None:
        sample = row.sample
        self._result.rejects.append(ShardReject(row.sample_id, error, message, sample.file, sample.position))

    def _write_rows(self) -> None:
        if not self._pending_rows:
            return
        slug = self._context.source.slug
        if self._writer is None:
            self._writer = FragmentWriter(self._lake.get_table(SAMPLES.name), slug)
        properties = self._images.read_properties(
            image_id for version in self._pending_rows for image_id in version.content.image_ids
        )
        self._writer.write(build_version_table(self._pending_rows, properties, slug, self._context.run_id))
        self._pending_rows = []
        self._row_chars = 0


class ShardTask(NamedTuple):
    """A shard for a worker process."""

    number: int
    context: ShardContext
    rows: Sequence[ShardRow]

    def __str__(self) -> str:
        return f"shard {self.number} of {self.context.source.slug}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle rows of text alone as one message, which costs a fifth of pickling every part of them."""
        if any(row.sample.images or row.sample.video is not None for row in self.rows):
            return ShardTask, tuple(self)
        return _unpack_task, (self.number, self.context, msgspec.msgpack.encode(self.rows))


def _unpack_task(number: int, context: ShardContext, rows: bytes) -> ShardTask:
    return ShardTask(number, context, msgspec.msgpack.decode(rows, type=list[ShardRow]))


def ingest_shard(task: ShardTask) -> ShardResult:
    """Write one shard in a worker process."""
    writer = ShardWriter(task.context, _open_lake(task.context.lake_root, task.context.source.slug))
    try:
        for row in task.rows:
            writer.add_row(row)
        return writer.finish()
    except BaseException:
        writer.cancel()
        raise


@lru_cache(maxsize=1)
def _open_lake(root: str, source: str) -> Lake:
    """Return a lake that a source's shards in one process share, because it indexes the source's images."""
    return Lake(root)
