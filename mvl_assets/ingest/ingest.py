"""One source's files into the lake: `images`, `samples` and `rejects`.

The order of writing is the recovery plan: pictures first, then the samples that refer to them, the rejects last and in
one commit. Everything written is named by its content, so a run that was killed anywhere is simply run again.

A sample whose content changed becomes a new revision. A sample that is gone from the files is withdrawn by a revision
without content. A row that is still there but cannot be read now becomes a reject and keeps the revision it had; and
while a file cannot be read to its end, nothing is withdrawn, because what is behind the break is not known to be gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.ingest.existing import KnownSamples, Version
from mvl_assets.ingest.images import Looks, PictureBatch
from mvl_assets.ingest.rejects import RejectSpool
from mvl_assets.ingest.row_index import WIDTH, Census, row_key, take_census
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.locks import taking_in
from mvl_assets.lake.schema import SAMPLES
from mvl_assets.lake_queries.tombstones import PURGED_CLASS, Purged, purged_of
from mvl_assets.readers.json_stream import BROKEN_FILE
from mvl_assets.readers.registry import keys_for, reader_for
from mvl_assets.readers.rows import RowError
from mvl_assets.readers.sample import Broken, Sample

PICTURE_BYTES = 64 << 20
PICTURE_ROWS = 512
SAMPLE_ROWS = 4096
SAMPLE_CHARS = 32 << 20
"""How much is held before it is written: pictures and the rows that use them (twice that, because some are looked at
while others are stored), then rows alone."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did. `rows` counts the rows looked at (those the limit takes), `rejects` by error class;
    `pictures` and `bytes` are what was new. `data_version` is of all versions of the source's samples."""

    rows: int
    new: int
    changed: int
    withdrawn: int
    rejects: dict[str, int]
    pictures: int
    bytes: int
    seconds: float
    data_version: str


def ingest_source(
    lake: Lake,
    source: SourceSpec,
    root: Path,
    *,
    run_id: str,
    limit: int | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Brings the lake up to date with the files below `root`. Doing it twice changes nothing.

    `limit` takes the rows with the smallest ids; only their pictures are decoded. `progress` is told (rows done, rows
    wanted). What was purged becomes a reject; a purged source is not read at all. Raises `SourceError` when the source
    as a whole cannot be read, `LeaseHeld` while data is being taken out of the lake.
    """
    begun = time.monotonic()
    if not root.is_dir():
        raise SourceError(
            source.slug,
            f"there is no folder {root}",
            hint=f"run `mvl demo-data` for drawn data, or put the source's files into {root}",
        )
    read, keys = reader_for(source.format), keys_for(source.format)
    with taking_in(lake), RejectSpool(source.slug, run_id) as rejects:
        purged = purged_of(lake, source.slug)
        if purged.whole:
            rejects.add(source.slug, PURGED_CLASS, purged.reason, "", 0)
        census = take_census(source.slug, () if purged.whole else keys(source, root), limit)
        work = _Ingest(lake, source, run_id, census, rejects, purged)
        try:
            for row in () if purged.whole else read(source, root):
                if work.take(row) and progress is not None:
                    progress(work.rows, work.wanted)
            if not (purged.whole or len(census)):
                raise SourceError(
                    source.slug,
                    f"the files in {root} hold no row",
                    hint=f"they should be as the format `{source.format}` has them; `mvl purge` takes a source out",
                )
            work.finish()
        finally:
            work.pictures.close()
        rejects.publish(lake)
    return IngestReport(
        rows=work.rows,
        new=work.new,
        changed=work.changed,
        withdrawn=work.withdrawn,
        rejects=dict(rejects.counts),
        pictures=work.pictures.stored,
        bytes=work.pictures.stored_bytes,
        seconds=time.monotonic() - begun,
        data_version=lake.table("samples").data_version(sql.equals("source", source.slug)),
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """A row whose pictures are named but perhaps not looked at yet."""

    sample: Sample
    sample_id: str
    image_ids: list[str]
    seconds: list[float] | None


class _Ingest:
    """The second pass: rows through three buffers (`_looked_at_next`, `_looked_at`, `_written_next`) into the lake."""

    def __init__(
        self, lake: Lake, source: SourceSpec, run_id: str, census: Census, rejects: RejectSpool, purged: Purged
    ) -> None:
        self.rows = self.new = self.changed = self.withdrawn = 0
        self.wanted = len(census) if census.chosen is None else int(census.chosen.sum())
        self.pictures = PictureBatch(lake)
        self._lake = lake
        self._source = source
        self._run_id = run_id
        self._census = census
        self._known = KnownSamples(lake, source.slug)
        self._rejects = rejects
        self._purged = purged
        self._file_broke = False
        self._purged_ids: list[str] = []
        self._looked_at_next: list[_Read] = []
        self._looked_at: tuple[list[_Read], Looks] = ([], {})
        self._written_next: list[dict[str, object]] = []
        self._chars = self._waiting_chars = 0

    def take(self, row: Sample | Broken) -> bool:
        """Takes in one row of the reader; False for a row that the limit leaves out."""
        index = self._census.index(row.file, row.position)
        if isinstance(row, Broken) and row.error == BROKEN_FILE:
            self._file_broke = True
        elif index is None or not self._census.is_called(index, row_key(row.file, row.position, row.native_id)):
            raise SourceError(self._source.slug, "the file changed while it was read", file=row.file, hint="run again")
        elif not self._census.is_chosen(index):
            return False
        self.rows += 1
        if isinstance(row, Broken):
            key = (
                self._census.sample_id(index)
                if index is not None
                else digest_hex(self._source.slug, row.file, row.position)
            )
            self._rejects.add(key, row.error, row.message, row.file, row.position)
            return True
        assert index is not None
        self._read(row, self._census.sample_id(index))
        return True

    def finish(self) -> None:
        """Writes what is held, then withdraws what is gone."""
        self._look()
        self._store()
        if not self._file_broke:
            # What stood in the place of a purged row before it moved there is elsewhere now, or gone.
            purged = np.array([bytes.fromhex(name) for name in self._purged_ids], dtype=f"S{WIDTH}")
            for sample_id, version in self._known.gone(np.setdiff1d(self._census.sorted_ids(), purged)):
                self._add(sample_id, version.revision + 1, None, None)
                self.withdrawn += 1
        self._write()

    def _read(self, sample: Sample, sample_id: str) -> None:
        seconds: list[float] | None = None
        try:
            if sample.video is not None:
                image_ids, seconds = self.pictures.add_video(sample.video)
            else:
                image_ids = self.pictures.add_pictures(sample)
        except RowError as error:
            self._rejects.add(sample_id, error.error, error.message, sample.file, sample.position)
            return
        found = _Read(sample, sample_id, image_ids, seconds)
        is_named = sample.native_id is not None
        if self._purged and self._purged.holds(sample_id, self._content(found), is_named=is_named):
            self._purged_ids.append(sample_id)
            self._rejects.add(sample_id, PURGED_CLASS, self._purged.reason, sample.file, sample.position)
            return
        self._looked_at_next.append(found)
        self._waiting_chars += sum(len(turn.value) for turn in sample.turns)
        is_heavy = self.pictures.held >= PICTURE_BYTES or self._waiting_chars >= SAMPLE_CHARS
        if is_heavy or len(self._looked_at_next) >= PICTURE_ROWS:
            self._look()

    def _look(self) -> None:
        """Stores what has been looked at, while threads look at the pictures of the rows that came since."""
        is_heavy = self.pictures.held > 2 * PICTURE_BYTES
        batch = (self._looked_at_next, self.pictures.look())
        self._looked_at_next = []
        self._waiting_chars = 0
        self._store()
        self._looked_at = batch
        if is_heavy:  # memory holds one such row, not two
            self._store()

    def _store(self) -> None:
        reads, looks = self._looked_at
        self._looked_at = ([], {})
        bad = self.pictures.store(looks, (read.image_ids for read in reads))
        good = []
        for read in reads:
            spoiled = next((name for name in read.image_ids if name in bad), None)
            if spoiled is None:
                good.append(read)
            else:
                error = bad[spoiled]
                place = read.image_ids.index(spoiled)
                name = read.sample.pictures[place].name if read.sample.pictures else f"frame {place}"
                self._rejects.add(
                    read.sample_id,
                    error.error,
                    f"{name}: {error.message}",
                    read.sample.file,
                    read.sample.position,
                )
        known = self._known.find([read.sample_id for read in good])
        for read, version in zip(good, known, strict=True):
            self._compare(read, version)

    def _compare(self, read: _Read, known: Version | None) -> None:
        """Adds the sample as a new one or a new revision, unless the lake has it as it is."""
        content = self._content(read)
        if known is None:
            self.new += 1
        elif known.withdrawn or known.content_hash != content["content_hash"]:
            self.changed += 1
        else:
            return
        self._add(read.sample_id, 1 if known is None else known.revision + 1, read.sample, content)

    def _content(self, read: _Read) -> dict[str, object]:
        video = None
        if read.sample.video is not None:
            video = {"name": read.sample.video.name, "seconds": read.seconds}
        content: dict[str, object] = {
            "conversations": [{"from": turn.role, "value": turn.value} for turn in read.sample.turns],
            "image_ids": read.image_ids,
            "video": video,
            "license": self._source.license,
        }
        return {**content, "content_hash": digest_hex(content)}

    def _add(self, sample_id: str, revision: int, sample: Sample | None, content: dict[str, object] | None) -> None:
        """One version; without a sample and content the sample is withdrawn."""
        if content is None:
            empty: dict[str, object] = {"conversations": [], "image_ids": [], "video": None, "license": None}
            content = {**empty, "content_hash": digest_hex(empty)}
        self._written_next.append(
            {
                "version_id": digest_hex(sample_id, content["content_hash"], revision),
                "sample_id": sample_id,
                "source": self._source.slug,
                "revision": revision,
                "withdrawn": sample is None,
                "native_id": sample.native_id if sample is not None else None,
                "origin": sample.origin if sample is not None else None,
                "file": sample.file if sample is not None else None,
                "position": sample.position if sample is not None else None,
                **content,
                "run_id": self._run_id,
            }
        )
        self._chars += sum(len(turn.value) for turn in sample.turns) if sample is not None else 0
        if len(self._written_next) >= SAMPLE_ROWS or self._chars >= SAMPLE_CHARS:
            self._write()

    def _write(self) -> None:
        if self._written_next:
            self._lake.table("samples").insert(pa.Table.from_pylist(self._written_next, schema=SAMPLES.columns))
        self._written_next = []
        self._chars = 0
