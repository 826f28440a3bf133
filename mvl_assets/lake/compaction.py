"""Making room: rows deleted by key, fragments rewritten without their deleted rows, versions forgotten.

Lance only marks deleted rows; their bytes lie on disk until the fragment that holds them is rewritten and every version
that still knows the old fragment is cleaned up. For the pictures that means whole files: the larger ones of a fragment
(64 MB of pictures when it comes from an ingest) share one packed file, which goes as a whole or stays as a whole. So
fragments are chosen one by one, and those without deleted rows are never touched.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.lake.errors import LakeError, disk_errors
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.table import RETRIES, Table

KEYS_PER_MERGE = 100_000
# Of pictures, which may have megabytes each: memory holds one batch. Neighbours are joined up to so many rows and no
# further, for the next removal must not pay for a huge fragment.
PICTURES_PER_BATCH = 16
PICTURES_PER_FRAGMENT = 4_096


@dataclass(frozen=True, slots=True)
class Waste:
    """What the deleted rows of one fragment take, by the column `size`, in bytes; `total` is of all its rows."""

    fragment: int
    deleted: int
    total: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Old versions removed, and the bytes that went with them."""

    versions: int
    bytes: int


def delete_keys(table: Table, keys: IdSet) -> int:
    """Deletes the rows with these keys, a bounded number per commit; returns how many there were."""
    if not len(keys) or not table.exists():
        return 0
    deleted = 0
    column = keys.column()
    field = table.schema.field(table.spec.key)
    with disk_errors(table.uri):
        for start in range(0, len(column), KEYS_PER_MERGE):
            some = pa.table([column.slice(start, KEYS_PER_MERGE)], schema=pa.schema([field]))
            stats = (
                table.handle()
                .merge_insert(table.spec.key)
                .when_matched_delete()
                .use_index(False)
                .conflict_retries(RETRIES)
                .execute(some)
            )
            deleted += stats["num_deleted_rows"]
            table.sync()
    return deleted


def waste(table: Table) -> list[Waste]:
    """The fragments of `images` that hold deleted rows."""
    if not table.exists():
        return []
    found = []
    dataset = table.open()
    for fragment in dataset.get_fragments():
        if fragment.num_deletions:
            scanner = dataset.scanner(
                columns=["size"], fragments=[fragment], include_deleted_rows=True, with_row_id=True
            )
            deleted = total = 0
            for batch in scanner.to_batches():
                for size, row in zip(batch.column("size").to_pylist(), batch.column("_rowid").to_pylist(), strict=True):
                    total += size
                    deleted += size if row is None else 0
            found.append(Waste(fragment.fragment_id, deleted, total))
    return found


def rewrite(table: Table, fragments: Collection[int]) -> int:
    """Rewrites these fragments without their deleted rows, and no others; returns how many there were to rewrite.

    The old files stay until `forget`. Raises `LakeError` when other writers keep getting in between.
    """
    if not table.exists():
        return 0
    bounds: dict[str, Any] = {}
    if table.spec.name == "images":
        bounds = {"target_rows_per_fragment": PICTURES_PER_FRAGMENT, "batch_size": PICTURES_PER_BATCH}
    with disk_errors(table.uri):
        for _ in range(RETRIES):
            dataset = table.handle()
            present = {f.fragment_id for f in dataset.get_fragments()}
            chosen = present & set(fragments)
            if not chosen:
                return 0
            try:
                dataset.optimize.compact_files(
                    excluded_fragment_ids=sorted(present - chosen),
                    materialize_deletions=True,
                    materialize_deletions_threshold=0.0,
                    num_threads=1,
                    **bounds,
                )
            except (OSError, RuntimeError, ValueError) as error:
                if "conflict" not in str(error).lower():
                    raise
                time.sleep(0.1)
            else:
                table.sync()  # before the files it replaces can go
                return len(chosen)
    raise LakeError(f"{table.uri}: another run keeps writing", hint="wait for it, then run the same command again")


def with_deleted(table: Table, share: float = 0.0) -> set[int]:
    """The fragments of which at least this share of rows is deleted, and at least one."""
    if not table.exists():
        return set()
    fragments = table.open().get_fragments()
    return {f.fragment_id for f in fragments if f.num_deletions and f.num_deletions >= share * max(1, f.physical_rows)}


def forget(table: Table, older_than: dt.timedelta, *, alone: bool = False, dry_run: bool = False) -> Forgotten:
    """Removes the versions older than that, but never the newest or a tagged one, and the files only they know.

    Files that no version knows (of writers that were killed) go when they are a week old, or at once for a caller who
    is `alone`: the only process that may write the table.
    """
    with disk_errors(table.uri):
        options: dict[str, Any] = {"delete_unverified": alone, "error_if_tagged_old_versions": False}
        if dry_run:
            stats = table.open().explain_cleanup_old_versions(older_than, **options).stats
        else:
            stats = table.handle().cleanup_old_versions(older_than, **options)
    return Forgotten(stats.old_versions, stats.bytes_removed)
