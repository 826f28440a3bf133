"""Reclaiming space: deleting rows by key, rewriting fragments without deleted rows, expiring old versions.

Lance only marks deleted rows; their bytes stay on disk until their fragment is rewritten and every version that knows
the old fragment is cleaned up. For images that means whole files: the larger blobs of a fragment (64 MB of images when
it comes from an ingest) share one packed file, which is kept or removed as a whole. So fragments are chosen one by one,
and those without deleted rows are never touched.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.lake.durability.heartbeat import require_held_leases
from mvl_assets.lake.errors import LakeError, translate_disk_errors
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.table import MAX_RETRIES, RETRY_TIMEOUT, Table

KEYS_PER_MERGE = 100_000
# An image may have megabytes, and memory holds one batch. Neighbouring fragments are joined up to this number of rows
# and no further, because the next removal must not pay for a huge fragment.
IMAGES_PER_BATCH = 16
IMAGES_PER_FRAGMENT = 4_096


@dataclass(frozen=True, slots=True)
class FragmentWaste:
    """Bytes of the deleted rows, and of all rows, of one fragment, by the column `size`."""

    fragment_id: int
    deleted_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class ExpiredVersions:
    """Number of old versions removed, and the bytes freed with them."""

    n_versions: int
    removed_bytes: int


def delete_keys(table: Table, keys: IdSet, partition_key: str | None = None) -> int:
    """Delete the rows with these keys, of one partition or of any, and return how many existed.

    Each commit deletes a bounded number, and reads all keys of the table.
    """
    if not len(keys) or not table.exists():
        return 0
    n_deleted = 0
    key_array = keys.to_arrow()
    key_fields = [table.schema.field(table.spec.key_column)]
    if partition_key is not None:
        key_fields.append(table.schema.field(table.spec.partition_column))
    with translate_disk_errors(table.uri):
        for start in range(0, len(key_array), KEYS_PER_MERGE):
            columns = [key_array.slice(start, KEYS_PER_MERGE)]
            if partition_key is not None:
                columns.append(pa.repeat(partition_key, len(columns[0])))
            key_batch = pa.table(columns, schema=pa.schema(key_fields))
            require_held_leases()
            stats = (
                table.open_writable()
                .merge_insert([field.name for field in key_fields])
                .when_matched_delete()
                .use_index(False)
                .conflict_retries(MAX_RETRIES)
                .retry_timeout(RETRY_TIMEOUT)
                .execute(key_batch)
            )
            n_deleted += stats["num_deleted_rows"]
            table.sync()
    return n_deleted


def measure_waste(table: Table) -> list[FragmentWaste]:
    """Measure the fragments of `images` that hold deleted rows."""
    if not table.exists():
        return []
    wastes = []
    dataset = table.open()
    for fragment in dataset.get_fragments():
        if fragment.num_deletions:
            scanner = dataset.scanner(
                columns=["size"], fragments=[fragment], include_deleted_rows=True, with_row_id=True
            )
            deleted_bytes = total_bytes = 0
            for batch in scanner.to_batches():
                for size, row_id in zip(
                    batch.column("size").to_pylist(), batch.column("_rowid").to_pylist(), strict=True
                ):
                    total_bytes += size
                    deleted_bytes += size if row_id is None else 0
            wastes.append(FragmentWaste(fragment.fragment_id, deleted_bytes, total_bytes))
    return wastes


def compact_fragments(table: Table, fragment_ids: Collection[int]) -> int:
    """Rewrite these fragments, and no others, without their deleted rows; return how many were rewritten.

    The old files stay until `expire_versions`.

    Raises:
        LakeError: Other writers keep committing in between.
    """
    if not table.exists():
        return 0
    return sum(_compact_together(table, group) for group in _group_by_partition(table, fragment_ids))


def _group_by_partition(table: Table, fragment_ids: Collection[int]) -> list[set[int]]:
    """Divide fragments so that each group can be joined: rows of two partitions must not meet in one fragment."""
    if table.spec.partition_column is None:
        return [set(fragment_ids)]
    dataset = table.open()
    groups = []
    remaining_ids = set(fragment_ids)
    for partition_key in table.list_partitions():
        own, _ = table.find_fragments(dataset, partition_key)
        groups.append(remaining_ids & {fragment.fragment_id for fragment in own})
        remaining_ids -= groups[-1]
    return [group for group in (*groups, *({fragment_id} for fragment_id in remaining_ids)) if group]


def _compact_together(table: Table, fragment_ids: Collection[int]) -> int:
    batch_limits: dict[str, Any] = {}
    if table.spec.name == "images":
        batch_limits = {"target_rows_per_fragment": IMAGES_PER_FRAGMENT, "batch_size": IMAGES_PER_BATCH}
    with translate_disk_errors(table.uri):
        for _ in range(MAX_RETRIES):
            dataset = table.open_writable()
            existing_ids = {f.fragment_id for f in dataset.get_fragments()}
            target_ids = existing_ids & set(fragment_ids)
            if not target_ids:
                return 0
            try:
                require_held_leases()
                dataset.optimize.compact_files(
                    excluded_fragment_ids=sorted(existing_ids - target_ids),
                    materialize_deletions=True,
                    materialize_deletions_threshold=0.0,
                    num_threads=1,
                    **batch_limits,
                )
            except (OSError, RuntimeError, ValueError) as error:
                if "conflict" not in str(error).lower():
                    raise
                time.sleep(0.1)
            else:
                table.sync()  # before the files it replaces can go
                return len(target_ids)
    raise LakeError(f"{table.uri}: another run keeps writing", hint="wait for it, then run the same command again")


def find_fragments_with_deletions(table: Table, min_fraction: float = 0.0) -> set[int]:
    """Return the fragments in which at least one row, and at least this share of the rows, is deleted."""
    if not table.exists():
        return set()
    fragments = table.open().get_fragments()
    return {
        f.fragment_id
        for f in fragments
        if f.num_deletions and f.num_deletions >= min_fraction * max(1, f.physical_rows)
    }


def expire_versions(
    table: Table, older_than: dt.timedelta, *, is_only_writer: bool = False, dry_run: bool = False
) -> ExpiredVersions:
    """Remove old versions, and the files only they refer to. The newest and tagged versions stay.

    Args:
        table: The table.
        older_than: Age above which a version is removed.
        is_only_writer: Whether no other process can write the table now. Then files that no version refers to, left by
            killed writers, are removed at once; otherwise when they are a week old.
        dry_run: Only count.
    """
    require_held_leases()
    with translate_disk_errors(table.uri):
        options: dict[str, Any] = {"delete_unverified": is_only_writer, "error_if_tagged_old_versions": False}
        if dry_run:
            stats = table.open().explain_cleanup_old_versions(older_than, **options).stats
        else:
            stats = table.open_writable().cleanup_old_versions(older_than, **options)
    return ExpiredVersions(stats.old_versions, stats.bytes_removed)
