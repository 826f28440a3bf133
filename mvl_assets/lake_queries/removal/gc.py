"""Garbage collection: unreferenced images, old table versions, and files of killed writers.

What may be removed rests on three facts. Nothing in the lake is read by version: mixtures, pack plans and checkpoints
refer to rows by id, and record the content they were made from by its digest. A sample's earlier revisions stay,
because training rows refer to them, and so do their images. A process keeps reading the version it has opened for
minutes, a long training for days, so versions younger than `older_than` stay whatever they hold. Images go only while
no ingest runs.

Every step is one commit, or removes files that no version refers to: a run that was killed is simply run again.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from mvl_assets.common.scratch_location import resolve_scratch_dir
from mvl_assets.lake.durability.compaction import (
    compact_fragments,
    delete_keys,
    expire_versions,
    find_fragments_with_deletions,
    measure_waste,
)
from mvl_assets.lake.durability.lease import create_lease
from mvl_assets.lake.durability.locks import acquire_removal_lock
from mvl_assets.lake.durability.scratch import sweep_scratch_dirs
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import resolve_local_path
from mvl_assets.lake.table import Table
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.lake_queries.removal.image_refs import find_unreferenced_images, iter_image_sizes
from mvl_assets.lake_queries.removal.purge_answers import ANSWERS_PREFIX

TORN_MANIFEST_GLOB = "torn-*.aside"
# Below this share a fragment is not worth rewriting: most of what would be copied is in use.
MIN_DELETED_FRACTION = 0.3
# Any running process may read versions younger than this.
MIN_SAFE_AGE = dt.timedelta(hours=1)


@dataclass
class GcReport:
    """Report of a garbage collection, or of what one would do.

    Attributes:
        lake_bytes_before: Bytes of the whole lake before.
        lake_bytes_after: Bytes of the whole lake afterwards.
        n_images: Unreferenced images, which are only marked as deleted.
        image_bytes: Their bytes.
        reclaimable_bytes: Bytes on disk of all images marked as deleted; see `compact_images`.
        n_scratch_dirs: Temporary folders of killed processes.
        n_torn_manifests: Torn manifests that were set aside earlier.
        n_expired_versions: Old versions removed, by table.
        reclaimed_bytes: Bytes removed with them, by table.
        n_compacted_fragments: Fragments rewritten without deleted rows, by table.
        skipped: Why a table or step was left out.
    """

    lake_bytes_before: int = 0
    lake_bytes_after: int = 0
    n_images: int = 0
    image_bytes: int = 0
    reclaimable_bytes: int = 0
    n_scratch_dirs: int = 0
    n_torn_manifests: int = 0
    n_expired_versions: dict[str, int] = field(default_factory=dict)
    reclaimed_bytes: dict[str, int] = field(default_factory=dict)
    n_compacted_fragments: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def collect_garbage(
    lake: Lake, older_than: dt.timedelta, *, compact_images: bool = False, dry_run: bool = False
) -> GcReport:
    """Remove unreferenced images, old table versions, and files of killed writers.

    Args:
        lake: The lake.
        older_than: Age above which table versions are removed. Below an hour, that includes versions that a running
            process may be reading.
        compact_images: Rewrite fragments of images of which at least `MIN_DELETED_FRACTION` of the bytes is deleted.
            Their old files go with their versions, `older_than` later.
        dry_run: Only report.

    Raises:
        LeaseHeld: `older_than` is below an hour and another process writes.
    """
    lake = lake.get_pipeline_lake()
    report = GcReport()
    table_bytes = measure_table_sizes(lake)
    report.lake_bytes_before = sum(table_bytes.values())
    is_exclusive = older_than < MIN_SAFE_AGE and not dry_run
    with ExitStack() as stack:
        if is_exclusive:
            stack.enter_context(acquire_removal_lock(lake))
            for name in table_bytes:
                if name.startswith(ANSWERS_PREFIX):
                    stack.enter_context(create_lease(lake.get_table(name)))
        needs_no_lock = is_exclusive or dry_run
        with _skip_if_busy("unreferenced images", report):
            _collect_images(lake, report, dry_run, nullcontext() if needs_no_lock else acquire_removal_lock(lake))
        images_table = lake.images.table
        if compact_images:
            # One commit per fragment: a kill loses the work of one.
            for fragment in sorted(_find_wasteful_fragments(images_table)):
                report.n_compacted_fragments["images"] = report.n_compacted_fragments.get("images", 0) + (
                    dry_run or compact_fragments(images_table, [fragment])
                )
        for name in table_bytes:
            needs_lease = name.startswith(ANSWERS_PREFIX) and not needs_no_lock
            with _skip_if_busy(name, report), create_lease(lake.get_table(name)) if needs_lease else nullcontext():
                _collect_table(lake.get_table(name), name, older_than, report, dry_run)
    report.reclaimable_bytes = sum(w.deleted_bytes for w in measure_waste(images_table))
    if not dry_run:
        report.n_scratch_dirs = sweep_scratch_dirs(resolve_scratch_dir())
    report.lake_bytes_after = sum(measure_table_sizes(lake).values())
    return report


@contextmanager
def _skip_if_busy(step: str, report: GcReport) -> Iterator[None]:
    """Leave a step out if another process or a damaged table prevents it."""
    try:
        yield
    except LakeError as error:
        report.skipped[step] = error.message


def _collect_images(lake: Lake, report: GcReport, dry_run: bool, lock: AbstractContextManager[None]) -> None:
    with lock:
        for source in lake.images.table.list_partitions():
            unreferenced = find_unreferenced_images(lake, source)
            report.image_bytes += sum(iter_image_sizes(lake, source, unreferenced))
            report.n_images += len(unreferenced)
            if not dry_run:
                delete_keys(lake.images.table, unreferenced, source)


def _find_wasteful_fragments(images_table: Table) -> set[int]:
    return {
        w.fragment_id for w in measure_waste(images_table) if w.deleted_bytes >= MIN_DELETED_FRACTION * w.total_bytes
    }


def _collect_table(table: Table, name: str, older_than: dt.timedelta, report: GcReport, dry_run: bool) -> None:
    if not table.exists():
        return
    # Answers compact themselves; images are rewritten on request.
    if not name.startswith(ANSWERS_PREFIX) and name != "images":
        fragment_ids = find_fragments_with_deletions(table, MIN_DELETED_FRACTION)
        if fragment_ids:
            report.n_compacted_fragments[name] = (
                len(fragment_ids) if dry_run else compact_fragments(table, fragment_ids)
            )
    expired = expire_versions(table, older_than, dry_run=dry_run)
    if expired.n_versions or expired.removed_bytes:
        report.n_expired_versions[name], report.reclaimed_bytes[name] = expired.n_versions, expired.removed_bytes
    path = resolve_local_path(table.uri)
    for manifest in sorted((path / "_versions").glob(TORN_MANIFEST_GLOB)) if path is not None else ():
        if time.time() - manifest.stat().st_mtime >= older_than.total_seconds():
            report.n_torn_manifests += 1
            if not dry_run:
                manifest.unlink(missing_ok=True)
