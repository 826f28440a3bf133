"""Removing what nothing needs: pictures no sample refers to, old versions of tables, what killed writers left.

What is safe to remove rests on three facts. Nothing in the lake is read by version: mixtures, pack plans and
checkpoints name rows, and know the content they were made of by its digest. A sample's superseded revisions stay,
because training rows refer to them, and so do their pictures. And a process reads a version that it opened for minutes,
a long training for days: versions younger than `older_than` stay, whatever they hold. Pictures go only while nobody
takes any in.

Every step is one commit, or removes files that no version names: a run that was killed is simply run again.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from mvl_assets.lake.compaction import delete_keys, forget, rewrite, waste, with_deleted
from mvl_assets.lake.durable import local_path
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.lease import lease_for
from mvl_assets.lake.locks import taking_out
from mvl_assets.lake.scratch import sweep
from mvl_assets.lake.table import Table
from mvl_assets.lake.table_sizes import inventory
from mvl_assets.lake_queries.image_refs import stored_sizes, unused_pictures

ANSWERS = "answers/"
ASIDE = "torn-*.aside"
# Below this a fragment is not worth rewriting: most of what would be copied is in use.
SHARE = 0.3
# Versions younger than this may be read by any process that runs now.
SHORTEST = dt.timedelta(hours=1)


@dataclass
class Collected:
    """What a collection did, or would do. `before` and `after` are the bytes of the whole lake.

    `versions` and `freed` are by table: old versions, and bytes removed with them. `pictures` that nothing refers to
    are only marked as deleted; `marked_bytes` is what all pictures so marked still take on disk. `rewritten` counts
    fragments by table, `busy` tells why a table or step was left out.
    """

    before: int = 0
    after: int = 0
    pictures: int = 0
    picture_bytes: int = 0
    marked_bytes: int = 0
    scratch: int = 0
    torn: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    freed: dict[str, int] = field(default_factory=dict)
    rewritten: dict[str, int] = field(default_factory=dict)
    busy: dict[str, str] = field(default_factory=dict)


def collect(
    lake: Lake, older_than: dt.timedelta, *, rewrite_pictures: bool = False, dry_run: bool = False
) -> Collected:
    """Removes what nothing needs; `dry_run` only looks.

    `rewrite_pictures` copies the pictures in use out of fragments of which `SHARE` of the bytes or more is deleted; the
    old files go with their versions, `older_than` later. An `older_than` below an hour takes versions that a running
    process may read: then nothing else may run, and `LeaseHeld` is raised when something does.
    """
    found = Collected()
    sizes = inventory(lake)
    found.before = sum(sizes.values())
    alone = older_than < SHORTEST and not dry_run
    with ExitStack() as stack:
        if alone:
            stack.enter_context(taking_out(lake))
            for name in sizes:
                if name.startswith(ANSWERS):
                    stack.enter_context(lease_for(lake.table(name)))
        free = alone or dry_run
        with _unless_busy("pictures", found):
            _collect_pictures(lake, found, dry_run, nullcontext() if free else taking_out(lake))
        images = lake.images.table
        if rewrite_pictures:
            for fragment in sorted(_wasteful(images)):  # a commit each: a kill loses the work of one
                found.rewritten["images"] = found.rewritten.get("images", 0) + (dry_run or rewrite(images, [fragment]))
        for name in sizes:
            leased = name.startswith(ANSWERS) and not free
            with _unless_busy(name, found), lease_for(lake.table(name)) if leased else nullcontext():
                _collect_table(lake.table(name), name, older_than, found, dry_run)
    found.marked_bytes = sum(w.deleted for w in waste(images))
    if not dry_run:
        found.scratch = sweep(Path(tempfile.gettempdir()))
    found.after = sum(inventory(lake).values())
    return found


@contextmanager
def _unless_busy(step: str, found: Collected) -> Iterator[None]:
    """Leaves a step out that another process, or a damaged table, stands in the way of."""
    try:
        yield
    except LakeError as error:
        found.busy[step] = error.message


def _collect_pictures(lake: Lake, found: Collected, dry_run: bool, guard: AbstractContextManager[None]) -> None:
    with guard:
        unused = unused_pictures(lake)
        found.picture_bytes = sum(stored_sizes(lake, unused))
        found.pictures = len(unused)
        if not dry_run:
            delete_keys(lake.images.table, unused)


def _wasteful(images: Table) -> set[int]:
    return {w.fragment for w in waste(images) if w.deleted >= SHARE * w.total}


def _collect_table(table: Table, name: str, older_than: dt.timedelta, found: Collected, dry_run: bool) -> None:
    if not table.exists():
        return
    if not name.startswith(ANSWERS) and name != "images":  # those fold themselves; pictures are rewritten on request
        fragments = with_deleted(table, SHARE)
        if fragments:
            found.rewritten[name] = len(fragments) if dry_run else rewrite(table, fragments)
    forgotten = forget(table, older_than, dry_run=dry_run)
    if forgotten.versions or forgotten.bytes:
        found.versions[name], found.freed[name] = forgotten.versions, forgotten.bytes
    path = local_path(table.uri)
    for manifest in sorted((path / "_versions").glob(ASIDE)) if path is not None else ():
        if time.time() - manifest.stat().st_mtime >= older_than.total_seconds():
            found.torn += 1
            if not dry_run:
                manifest.unlink(missing_ok=True)
