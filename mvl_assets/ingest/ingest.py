"""Ingest of one source's files into the tables `images`, `samples` and `rejects`.

The order of writing is the recovery plan: images first, then the samples that refer to them, the rejects last and in
one commit. Everything written is identified by its content, so a run that was killed anywhere is simply run again.

A sample whose content changed becomes a new revision. A sample that is no longer in the files is withdrawn by a
revision without content. A row that is still there but cannot be read now becomes a reject and keeps the revision it
had; while a file cannot be read to its end, nothing is withdrawn, because the rows after the break are not known to be
gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.id_array import pack_ids
from mvl_assets.common.rejects import RejectError
from mvl_assets.common.sample_facts import WITHDRAWN_FACTS, build_sample_facts
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.ingest.existing import ExistingSamples, SampleVersion
from mvl_assets.ingest.images import ImageBatch, PendingDecodes
from mvl_assets.ingest.rejects import RejectSpool
from mvl_assets.ingest.row_index import RowIndex, build_row_index, compute_row_key
from mvl_assets.lake.durability.locks import acquire_ingest_lock
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.tables import SAMPLES
from mvl_assets.lake_queries.removal.tombstones import PURGED_ERROR_CLASS, Tombstones, load_tombstones
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE
from mvl_assets.readers.registry import get_key_reader, get_reader
from mvl_assets.readers.sample import RejectedRow, Sample

MAX_PENDING_IMAGE_BYTES = 64 << 20
MAX_PENDING_ROWS = 512
INSERT_ROWS = 4096
INSERT_CHARS = 32 << 20
"""Limits of the buffers: images and the rows that use them (memory holds twice that, because some are decoded while
others are stored), then rows alone."""

ProgressFn = Callable[[int, int], None]


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
        progress: Called with (rows done, rows selected).

    Raises:
        SourceError: The source as a whole cannot be read.
        LeaseHeld: Data is being removed from the lake.
    """
    started_at = time.monotonic()
    if not root.is_dir():
        raise SourceError(
            source.slug,
            f"the folder {root} does not exist",
            hint=f"run `mvl demo-data` for drawn data, or put the source's files into {root}",
        )
    read_rows, iter_keys = get_reader(source.format), get_key_reader(source.format)
    with acquire_ingest_lock(lake), RejectSpool(source.slug, run_id) as rejects:
        purged = load_tombstones(lake, source.slug)
        if purged.is_whole_source:
            rejects.add(source.slug, PURGED_ERROR_CLASS, purged.reason, "", 0)
        row_index = build_row_index(source.slug, () if purged.is_whole_source else iter_keys(source, root), limit)
        ingest_run = _IngestRun(lake, source, run_id, row_index, rejects, purged)
        try:
            for row in () if purged.is_whole_source else read_rows(source, root):
                if ingest_run.add_row(row) and progress is not None:
                    progress(ingest_run.n_rows, ingest_run.n_selected)
            if not (purged.is_whole_source or len(row_index)):
                raise SourceError(
                    source.slug,
                    f"the files in {root} hold no rows",
                    hint=f"the format `{source.format}` must fit the files; `mvl purge` removes a source",
                )
            ingest_run.finish()
        finally:
            ingest_run.images.close()
        rejects.publish(lake)
    return IngestReport(
        n_rows=ingest_run.n_rows,
        n_new=ingest_run.n_new,
        n_changed=ingest_run.n_changed,
        n_withdrawn=ingest_run.n_withdrawn,
        reject_counts=dict(rejects.counts),
        n_new_images=ingest_run.images.n_stored,
        new_image_bytes=ingest_run.images.stored_bytes,
        duration_s=time.monotonic() - started_at,
        data_version=lake.get_table("samples").compute_data_version(source.slug),
    )


@dataclass(frozen=True, slots=True)
class _PendingSample:
    """A row whose images have ids but may not be decoded yet."""

    sample: Sample
    sample_id: str
    image_ids: list[str]
    frame_times_s: list[float] | None


class _IngestRun:
    """The second pass: rows through three buffers (`_pending_decode`, `_decoding`, `_pending_insert`) into the lake."""

    def __init__(
        self, lake: Lake, source: SourceSpec, run_id: str, row_index: RowIndex, rejects: RejectSpool, purged: Tombstones
    ) -> None:
        self.n_rows = self.n_new = self.n_changed = self.n_withdrawn = 0
        self.n_selected = len(row_index) if row_index.selected is None else int(row_index.selected.sum())
        self.images = ImageBatch(lake, source.slug)
        self._lake = lake
        self._source = source
        self._run_id = run_id
        self._row_index = row_index
        self._existing = ExistingSamples(lake, source.slug)
        self._rejects = rejects
        self._purged = purged
        self._has_unreadable_file = False
        self._purged_ids: list[str] = []
        self._pending_decode: list[_PendingSample] = []
        self._decoding: tuple[list[_PendingSample], PendingDecodes] = ([], {})
        self._pending_insert: list[dict[str, object]] = []
        self._insert_chars = self._decode_chars = 0

    def add_row(self, row: Sample | RejectedRow) -> bool:
        """Take one row from the reader; return False for a row that the limit leaves out.

        Raises:
            SourceError: The file changed while it was read.
        """
        index = self._row_index.find_index(row.file, row.position)
        if isinstance(row, RejectedRow) and row.error == BROKEN_FILE:
            self._has_unreadable_file = True
        elif index is None or not self._row_index.matches_key(
            index, compute_row_key(row.file, row.position, row.native_id)
        ):
            raise SourceError(self._source.slug, "the file changed while it was read", file=row.file, hint="run again")
        elif not self._row_index.is_selected(index):
            return False
        self.n_rows += 1
        if isinstance(row, RejectedRow):
            key = (
                self._row_index.get_sample_id(index)
                if index is not None
                else compute_digest(self._source.slug, row.file, row.position)
            )
            self._rejects.add(key, row.error, row.message, row.file, row.position)
            return True
        assert index is not None
        self._queue_sample(row, self._row_index.get_sample_id(index))
        return True

    def finish(self) -> None:
        """Write what is buffered, then withdraw the samples that are no longer in the files."""
        self._submit_decodes()
        self._store_images()
        if not self._has_unreadable_file:
            # A purged row may have moved to the place, and so the id, of a sample that is elsewhere now or gone.
            purged_ids = pack_ids(self._purged_ids)
            for sample_id, version in self._existing.iter_missing_from(
                np.setdiff1d(self._row_index.to_sorted_ids(), purged_ids)
            ):
                self._queue_version(sample_id, version.revision + 1, None, None)
                self.n_withdrawn += 1
        self._insert_samples()

    def _queue_sample(self, sample: Sample, sample_id: str) -> None:
        frame_times_s: list[float] | None = None
        try:
            if sample.video is not None:
                image_ids, frame_times_s = self.images.add_video(sample.video)
            else:
                image_ids = self.images.add_images(sample)
        except RejectError as error:
            self._rejects.add(sample_id, error.code, error.message, sample.file, sample.position)
            return
        pending = _PendingSample(sample, sample_id, image_ids, frame_times_s)
        is_named = sample.native_id is not None
        if self._purged and self._purged.matches(sample_id, self._build_content(pending), has_native_id=is_named):
            self._purged_ids.append(sample_id)
            self._rejects.add(sample_id, PURGED_ERROR_CLASS, self._purged.reason, sample.file, sample.position)
            return
        self._pending_decode.append(pending)
        self._decode_chars += sum(len(turn.value) for turn in sample.turns)
        is_heavy = self.images.pending_bytes >= MAX_PENDING_IMAGE_BYTES or self._decode_chars >= INSERT_CHARS
        if is_heavy or len(self._pending_decode) >= MAX_PENDING_ROWS:
            self._submit_decodes()

    def _submit_decodes(self) -> None:
        """Store the decoded images while threads decode those of the rows that came since."""
        is_heavy = self.images.pending_bytes > 2 * MAX_PENDING_IMAGE_BYTES
        batch = (self._pending_decode, self.images.submit_decodes())
        self._pending_decode = []
        self._decode_chars = 0
        self._store_images()
        self._decoding = batch
        if is_heavy:  # keep one such batch in memory, not two
            self._store_images()

    def _store_images(self) -> None:
        pending_samples, decodes = self._decoding
        self._decoding = ([], {})
        errors = self.images.store_images(decodes, (pending.image_ids for pending in pending_samples))
        decoded = []
        for pending in pending_samples:
            failed_id = next((image_id for image_id in pending.image_ids if image_id in errors), None)
            if failed_id is None:
                decoded.append(pending)
                continue
            sample, error = pending.sample, errors[failed_id]
            image_index = pending.image_ids.index(failed_id)
            name = sample.images[image_index].name if sample.images else f"frame {image_index}"
            message = f"{name}: {error.message}"
            self._rejects.add(pending.sample_id, error.code, message, sample.file, sample.position)
        versions = self._existing.lookup([pending.sample_id for pending in decoded])
        changed = [
            (pending, 1 if version is None else version.revision + 1, content)
            for pending, version in zip(decoded, versions, strict=True)
            if (content := self._build_changed_content(pending, version)) is not None
        ]
        image_ids = {image_id for pending, _, _ in changed for image_id in pending.image_ids}
        properties = self.images.read_properties(image_ids, decodes)
        for pending, revision, content in changed:
            names = [image.name for image in pending.sample.images] or [None] * len(pending.image_ids)
            facts = build_sample_facts(
                pending.sample_id, content["conversations"], pending.image_ids, names, properties
            )
            self._queue_version(pending.sample_id, revision, pending.sample, {**content, **facts})

    def _build_changed_content(self, pending: _PendingSample, existing: SampleVersion | None) -> dict[str, Any] | None:
        """Return the content of a new sample or a new revision; None if the lake has this content already."""
        content = self._build_content(pending)
        if existing is None:
            self.n_new += 1
        elif existing.withdrawn or existing.content_hash != content["content_hash"]:
            self.n_changed += 1
        else:
            return None
        return content

    def _build_content(self, pending: _PendingSample) -> dict[str, Any]:
        video = None
        if pending.sample.video is not None:
            video = {"name": pending.sample.video.name, "seconds": pending.frame_times_s}
        content: dict[str, Any] = {
            "conversations": [{"from": turn.role, "value": turn.value} for turn in pending.sample.turns],
            "image_ids": pending.image_ids,
            "video": video,
            "license": self._source.license,
        }
        return {**content, "content_hash": compute_digest(content)}

    def _queue_version(
        self, sample_id: str, revision: int, sample: Sample | None, content: dict[str, Any] | None
    ) -> None:
        """Buffer one version; without a sample and content the sample is withdrawn."""
        if content is None:
            empty: dict[str, object] = {"conversations": [], "image_ids": [], "video": None, "license": None}
            content = {**empty, **WITHDRAWN_FACTS, "content_hash": compute_digest(empty)}
        self._pending_insert.append(
            {
                "version_id": compute_digest(sample_id, content["content_hash"], revision),
                "sample_id": sample_id,
                "source": self._source.slug,
                "revision": revision,
                "withdrawn": sample is None,
                "native_id": sample.native_id if sample is not None else None,
                "upstream_dataset": sample.upstream_dataset if sample is not None else None,
                "file": sample.file if sample is not None else None,
                "position": sample.position if sample is not None else None,
                **content,
                "run_id": self._run_id,
            }
        )
        self._insert_chars += sum(len(turn.value) for turn in sample.turns) if sample is not None else 0
        if len(self._pending_insert) >= INSERT_ROWS or self._insert_chars >= INSERT_CHARS:
            self._insert_samples()

    def _insert_samples(self) -> None:
        if self._pending_insert:
            rows = pa.Table.from_pylist(self._pending_insert, schema=SAMPLES.columns)
            table = self._lake.get_table("samples")
            table.append_fragments([table.write_fragments([rows], self._source.slug)])
        self._pending_insert = []
        self._insert_chars = 0
