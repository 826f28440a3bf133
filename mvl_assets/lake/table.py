"""One Lance table that can be written: appending to a partition, and publishing a partition in one commit.

Each fragment holds rows of one partition (one source). Rows are written to fragments that no version knows yet, in any
process, and one commit then adds them or exchanges them for the partition's old ones. So the cost of a write depends on
what is written, not on what is stored, and writers of different partitions never conflict.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata, write_fragments

from mvl_assets.common.batches import keep_producer_errors
from mvl_assets.common.digest import KEY_SCHEME, DigestSum, compute_row_hashes, format_digest_sum
from mvl_assets.common.id_array import concatenate_ids, pack_id_column, unpack_id
from mvl_assets.lake import sql
from mvl_assets.lake.durability.durable import fsync_data_files, remove_data_files
from mvl_assets.lake.durability.heartbeat import require_held_leases
from mvl_assets.lake.errors import LakeError, translate_disk_errors
from mvl_assets.lake.fragments import (
    FRAGMENT_BITS,
    UncommittedFragments,
    format_fragments,
    list_data_files,
    load_fragments,
)
from mvl_assets.lake.row_difference import compute_row_difference
from mvl_assets.lake.schemas.table_spec import KEY_SCHEME_COLUMN, ROW_HASH_COLUMN
from mvl_assets.lake.storage import resolve_local_path
from mvl_assets.lake.table_reader import ROW_ADDRESS, TableReader

MAX_RETRIES = 30
# Lance stops retrying after 30 s by default, which large tables, busy machines and object stores exceed.
RETRY_TIMEOUT = dt.timedelta(minutes=30)
ROWS_PER_FILE = 1 << 20
BYTES_PER_FILE = 4 << 30
# Lance's filter against concurrent duplicates holds 8,192 keys; larger merges conflict falsely and start over.
ROWS_PER_MERGE = 5_000


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Changes made by a publish.

    Attributes:
        n_rows: Rows of the partition, or of the whole table.
        n_added: Of these, rows with new keys.
        n_changed: Rows with a known key and other content.
        n_removed: Rows that are gone.
        version: The table's version afterwards; without a change there is no new version.
        data_version: Digest of the published rows.
    """

    n_rows: int
    n_added: int
    n_changed: int
    n_removed: int
    version: int
    data_version: str

    @property
    def changed_anything(self) -> bool:
        """Whether the publish made a new version."""
        return bool(self.n_added or self.n_changed or self.n_removed)


class Table(TableReader):
    """A table that can be written. All writes to derived tables go through it."""

    def open_writable(self) -> lance.LanceDataset:
        """Open the newest version as a handle of the caller's own: Lance moves the handle that commits."""
        dataset = self.open()
        return dataset.checkout_version(dataset.version)

    # -- writing fragments, then committing them -------------------------------------------------------------------

    def write_fragments(
        self, batches: Iterable[pa.RecordBatch | pa.Table], partition_key: str | None = None
    ) -> UncommittedFragments:
        """Write rows of one partition durably, without making them visible. Memory holds one batch and the keys.

        May be called in any process. What is never committed is removed by `mvl gc` after a week.

        Args:
            batches: The rows; they may lack `row_hash` and `key_scheme`.
            partition_key: Value of the spec's partition column; None for a table without one.

        Raises:
            LakeError: Two rows have one key, a row is of another partition, or columns are missing.
        """
        if (partition_key is None) != (self.spec.partition_column is None):
            raise LakeError(f"{self.uri}: rows are written with the value of {self.spec.partition_column!r}")
        digest = DigestSum()
        key_arrays: list[np.ndarray] = []

        def iter_checked() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                rows = self._conform_to_schema(batch)
                if not len(rows):
                    continue
                self._check_partition(rows, partition_key)
                key_arrays.append(pack_id_column(rows.column(self.spec.key_column)))
                if self.spec.has_row_hash:
                    digest.add(rows.column(ROW_HASH_COLUMN))
                yield from rows.to_batches()

        with translate_disk_errors(self.uri):
            self.create()
            fragments = self._write_stream(iter_checked())
            self._check_keys(key_arrays, fragments)
        n_rows = sum(len(keys) for keys in key_arrays)
        return UncommittedFragments(partition_key, format_fragments(fragments), n_rows, digest.total)

    def append_fragments(self, written: Sequence[UncommittedFragments]) -> None:
        """Add written rows to the table, in one commit. Keys are not compared with those that are stored."""
        fragments = load_fragments(written)
        if fragments:
            with translate_disk_errors(self.uri):
                # Fragments of another writer never stand in the way of an append, so there is no conflict to handle.
                self._commit(lance.LanceOperation.Append(fragments), self.open())

    def replace_partition(
        self, written: Sequence[UncommittedFragments], partition_key: str | None = None
    ) -> PublishResult:
        """Make written rows the exact content of one partition, in one commit.

        Equal content commits nothing, so a run that changed nothing makes nothing stale; the written files are then
        removed again. Of several processes that replace the same partition, the last one wins as a whole.

        Args:
            written: What `write_fragments` returned, in the order that the rows shall have.
            partition_key: The partition; None for a table without a partition column, which is replaced whole.
        """
        n_rows = sum(part.n_rows for part in written)
        data_version = format_digest_sum(n_rows, sum(part.hash_sum for part in written))
        with translate_disk_errors(self.uri):
            self.create()
            before = self.snapshot()
            if before.compute_data_version(partition_key) == data_version:
                self.discard_fragments(written)
                return PublishResult(n_rows, 0, 0, 0, self.version, data_version)
            fragments = load_fragments(written)
            if self.spec.partition_column is None:
                # Whole tables are read in the order in which they were written.
                self._commit(lance.LanceOperation.Overwrite(self.schema, fragments), self.open())
            else:
                self._exchange_until_alone(partition_key or "", fragments)
            n_added, n_changed, n_removed = compute_row_difference(before, self.snapshot(), partition_key)
        return PublishResult(n_rows, n_added, n_changed, n_removed, self.version, data_version)

    def exchange_fragments(self, old: Sequence[lance.LanceFragment], new: Sequence[UncommittedFragments]) -> None:
        """Exchange fragments for written rows, in one commit.

        Raises:
            CommitConflictError: Another process has changed one of the old fragments.
        """
        self._exchange(old, [], load_fragments(new), self.open())

    def exchange_rows(
        self, column: str, values: pa.Array, batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> PublishResult:
        """Make these rows those that have one of some values in a column, in one commit; all others stay.

        What is equal to a stored row is not written. For tables without a partition column, whose order nobody needs.

        Args:
            column: The column.
            values: The values.
            batches: All rows that shall have one of them.

        Raises:
            LakeError: Another process has changed one of the rows meanwhile.
        """
        key = self.spec.key_column
        with translate_disk_errors(self.uri):
            self.create()
            reader = self.snapshot()
            stored = reader.find_rows(column, values, [key, ROW_HASH_COLUMN])
            hashes = dict(zip(stored.column(key).to_pylist(), stored.column(ROW_HASH_COLUMN).to_pylist(), strict=True))
            rows = pa.concat_tables([self.schema.empty_table(), *map(self._conform_to_schema, batches)])
            keys, row_hashes = rows.column(key).to_pylist(), rows.column(ROW_HASH_COLUMN).to_pylist()
            is_new = [hashes.get(k) != row_hash for k, row_hash in zip(keys, row_hashes, strict=True)]
            new_keys = set(rows.column(key).filter(pa.array(is_new, pa.bool_())).to_pylist())
            removed_keys = hashes.keys() - set(keys)
            replaced_keys = hashes.keys() & new_keys
            if new_keys or removed_keys:
                written = self.write_fragments([rows.filter(pa.array(is_new, pa.bool_()))])
                is_gone = pc.is_in(stored.column(key), value_set=pa.array([*removed_keys, *replaced_keys], pa.string()))
                dataset = reader.open()
                old, kept = self._delete_rows(dataset, stored.filter(is_gone))
                try:
                    self._exchange(old, kept, load_fragments([written]), dataset)
                except CommitConflictError as error:
                    self.discard_fragments([written])
                    raise LakeError(f"{self.uri}: another run has changed the same rows", hint="run again") from error
        n_rows = self.count()
        return PublishResult(
            n_rows,
            len(new_keys) - len(replaced_keys),
            len(replaced_keys),
            len(removed_keys),
            self.version,
            self.compute_data_version(),
        )

    def _delete_rows(
        self, dataset: lance.LanceDataset, rows: pa.Table
    ) -> tuple[list[lance.LanceFragment], list[FragmentMetadata | None]]:
        """Delete rows with keys and addresses, and return their fragments as they are and as they will be."""
        keys_by_fragment: dict[int, list[str]] = {}
        for key, address in zip(
            rows.column(self.spec.key_column).to_pylist(), rows.column(ROW_ADDRESS).to_pylist(), strict=True
        ):
            keys_by_fragment.setdefault(address >> FRAGMENT_BITS, []).append(key)
        old, kept = [], []
        for fragment in dataset.get_fragments():
            if (keys := keys_by_fragment.get(fragment.fragment_id)) is not None:
                old.append(fragment)
                kept.append(fragment.delete(sql.is_in(self.spec.key_column, keys)))
        return old, kept

    def publish(self, batches: Iterable[pa.RecordBatch | pa.Table], partition_key: str | None = None) -> PublishResult:
        """Make these rows the exact content of one partition, in one commit: `write_fragments`, `replace_partition`.

        Raises what those raise.
        """
        return self.replace_partition([self.write_fragments(batches, partition_key)], partition_key)

    def discard_fragments(self, written: Iterable[UncommittedFragments]) -> None:
        """Remove files that were written and will not be committed."""
        remove_data_files(self.uri, list_data_files(load_fragments(written)))

    def compact_partition(self, partition_key: str | None, rows_per_fragment: int = ROWS_PER_FILE) -> int:
        """Rewrite a partition's small fragments, and those with deleted rows, as large ones, in one commit.

        The rows keep their order, but come after the partition's large fragments. For tables without blobs: images are
        written in large files and never rewritten.

        Args:
            partition_key: The partition; None for a table without a partition column.
            rows_per_fragment: Rows of a large fragment; those with at most half as many are small.

        Returns:
            The number of fragments that were rewritten.
        """
        if not self.exists():
            return 0
        with translate_disk_errors(self.uri):
            for _ in range(MAX_RETRIES):
                dataset = self.open()
                own = (
                    dataset.get_fragments() if partition_key is None else self.find_fragments(dataset, partition_key)[0]
                )
                small = [f for f in own if f.num_deletions or 2 * f.physical_rows <= rows_per_fragment]
                if len(small) < 2 and not any(f.num_deletions for f in small):
                    return 0
                batches = dataset.scanner(fragments=small, batch_size=8192).to_batches()
                fragments = self._write_stream(batches, rows_per_fragment)
                try:
                    self._exchange(small, [], fragments, dataset)
                except CommitConflictError:
                    remove_data_files(self.uri, list_data_files(fragments))
                    continue
                return len(small)
        raise LakeError(
            f"{self.uri}: another run keeps writing {partition_key or 'it'}", hint="wait for it, then run again"
        )

    def _write_stream(
        self, batches: Iterable[pa.RecordBatch], rows_per_file: int = ROWS_PER_FILE
    ) -> list[FragmentMetadata]:
        # A scan gives its batches without the metadata of the schema.
        rebuilt = (pa.RecordBatch.from_arrays(batch.columns, schema=self.schema) for batch in batches)
        with keep_producer_errors(rebuilt) as guarded:
            fragments = write_fragments(
                pa.RecordBatchReader.from_batches(self.schema, guarded),
                self.open(),  # rather than the URI, which would be opened once more for every write
                self.schema,
                max_rows_per_file=rows_per_file,
                max_bytes_per_file=BYTES_PER_FILE,
            )
        assert isinstance(fragments, list)  # a transaction only where one is asked for
        fragments = [fragment for fragment in fragments if fragment.physical_rows]
        fsync_data_files(self.uri, list_data_files(fragments))
        return fragments

    def _exchange_until_alone(self, partition_key: str, fragments: Sequence[FragmentMetadata]) -> None:
        """Exchange a partition's fragments for these.

        Two processes that replace the same fragments conflict, and one of them reads again. Two that publish a
        partition for the first time do not: both add their rows. So what is there afterwards is looked at, and
        exchanged once more if it is not exactly this.
        """
        new_files = set(list_data_files(fragments))
        partition_filter = self.build_partition_filter(partition_key) or ""
        is_committed = False
        deadline = time.monotonic() + RETRY_TIMEOUT.total_seconds()
        while time.monotonic() < deadline:
            dataset = self.open()
            own, mixed = self.find_fragments(dataset, partition_key)
            mixed = [f for f in mixed if f.count_rows(partition_filter)]
            files = set(list_data_files(f.metadata for f in own))
            if (not mixed and files == new_files) or (is_committed and not files & new_files):
                return  # the second: another process has replaced them since
            kept = [f.delete(partition_filter) for f in mixed]
            try:
                self._exchange([*own, *mixed], kept, fragments, dataset)
                is_committed = True
            except CommitConflictError:
                time.sleep(random.uniform(0.01, 0.1))
        raise LakeError(f"{self.uri}: another run keeps publishing {partition_key}", hint="cancel one of the runs")

    def _exchange(
        self,
        old: Sequence[lance.LanceFragment],
        kept: Sequence[FragmentMetadata | None],
        new: Sequence[FragmentMetadata],
        dataset: lance.LanceDataset,
    ) -> None:
        """Commit the exchange of fragments; those in `kept` stay, without the rows that were deleted in them."""
        kept_fragments = [fragment for fragment in kept if fragment is not None]
        kept_ids = {fragment.id for fragment in kept_fragments}
        removed_ids = [f.fragment_id for f in old if f.fragment_id not in kept_ids]
        if not removed_ids and not kept_fragments:
            operation: lance.LanceOperation.BaseOperation = lance.LanceOperation.Append(list(new))
        else:
            operation = lance.LanceOperation.Update(removed_ids, kept_fragments, list(new))
        self._commit(operation, dataset)

    def _commit(self, operation: lance.LanceOperation.BaseOperation, dataset: lance.LanceDataset) -> None:
        """Commit what was computed from a version of the table. The handle stays at that version."""
        self._require_writable()
        committed = lance.LanceDataset.commit(
            dataset,
            operation,
            read_version=dataset.version,
            storage_options=self.storage_options,
            commit_timeout=RETRY_TIMEOUT,
        )
        self.sync(has_new_data=False)  # fragments are durable before they are committed
        self._keep_handle(committed)

    def _require_writable(self) -> None:
        if self.is_snapshot:
            raise LakeError(f"{self.uri} is opened as a snapshot, for reading")
        require_held_leases()

    def _check_partition(self, rows: pa.Table, partition_key: str | None) -> None:
        if partition_key is not None:
            values = rows.column(self.spec.partition_column or "").unique().to_pylist()
            if values != [partition_key]:
                raise LakeError(f"{self.uri}: rows of {values} offered for partition {partition_key!r}")

    def _check_keys(self, key_arrays: Sequence[np.ndarray], fragments: Sequence[FragmentMetadata]) -> None:
        keys = np.sort(concatenate_ids(key_arrays))
        repeated = np.flatnonzero(keys[1:] == keys[:-1])
        if len(repeated):
            remove_data_files(self.uri, list_data_files(fragments))
            raise LakeError(f"{self.uri}: two rows with the key {unpack_id(keys[repeated[0]])} in one publish")

    # -- small tables ----------------------------------------------------------------------------------------------

    def insert(self, rows: pa.Table) -> int:
        """Add the rows whose key is not stored yet, and return their number. Safe with concurrent writers.

        Reads every key of the table, so it is for small tables. Of several rows with one key the first is taken.
        """
        rows = keep_first_per_key(self._conform_to_schema(rows), self.spec.key_column)
        if not len(rows):
            return 0
        n_inserted = 0
        with translate_disk_errors(self.uri):
            self.create()
            dataset = self.open_writable()
            for start in range(0, len(rows), ROWS_PER_MERGE):
                self._require_writable()
                # Without use_index(False) an index on the key would silently let two writers insert the same row.
                stats = (
                    dataset.merge_insert(self.spec.key_column)
                    .when_not_matched_insert_all()
                    .use_index(False)
                    .conflict_retries(MAX_RETRIES)
                    .retry_timeout(RETRY_TIMEOUT)
                    .execute(rows.slice(start, ROWS_PER_MERGE))
                )
                n_inserted += stats["num_inserted_rows"]
                self.sync()
        return n_inserted

    def delete(self, filter: str) -> None:
        """Remove the rows that match. For purging; derived tables lose rows through `publish`."""
        if self.exists():
            self._require_writable()
            with translate_disk_errors(self.uri):
                self.open_writable().delete(filter, conflict_retries=MAX_RETRIES, retry_timeout=RETRY_TIMEOUT)
                self.sync()

    def delete_from_fragments(self, dataset: lance.LanceDataset, conditions: Mapping[int, str]) -> None:
        """Remove the rows that match the condition of their fragment, in one commit.

        Args:
            dataset: The version in which the fragments were found.
            conditions: SQL conditions by fragment id.
        """
        updated: list[FragmentMetadata] = []
        removed_ids: list[int] = []
        with translate_disk_errors(self.uri):
            for fragment_id, condition in conditions.items():
                fragment = dataset.get_fragment(fragment_id)
                kept = fragment.delete(condition) if fragment is not None else None
                if kept is None:
                    removed_ids.append(fragment_id)
                else:
                    updated.append(kept)
            self._commit(lance.LanceOperation.Delete(updated, removed_ids, "rows of fragments"), dataset)

    # -- schema ----------------------------------------------------------------------------------------------------

    def _conform_to_schema(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """Order and cast the columns as the schema has them, and add `key_scheme` and `row_hash` where they are due."""
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        missing = [name for name in self.spec.columns.names if name not in table.column_names]
        if missing:
            raise LakeError(f"{self.uri}: rows lack the columns {missing}")
        if self.spec.has_key_scheme and KEY_SCHEME_COLUMN not in table.column_names:
            table = table.append_column(KEY_SCHEME_COLUMN, pa.repeat(pa.scalar(KEY_SCHEME, pa.int32()), len(table)))
        if self.spec.has_row_hash and ROW_HASH_COLUMN not in table.column_names:
            hashes = compute_row_hashes(table, self.spec.content_columns)
            table = table.append_column(ROW_HASH_COLUMN, hashes)
        return table.select(self.schema.names).cast(self.schema)

    def create(self) -> None:
        """Create the table if it does not exist; losing the race to another creator is fine."""
        if self.exists():
            return
        path = resolve_local_path(self.uri)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Without retries a creation that comes second fails. With them (write_dataset uses them even for
            # mode="create") it now and then becomes an overwrite of what the first creator has stored since.
            empty = lance.LanceOperation.Overwrite(self.schema, [])
            lance.LanceDataset.commit(self.uri, empty, storage_options=self.storage_options, max_retries=0)
        except (OSError, ValueError):
            if not self._wait_until_exists():
                raise

    def _wait_until_exists(self) -> bool:
        """Return whether another process has created the table, after at most a second."""
        for _ in range(50):
            if self.exists():
                return True
            time.sleep(random.uniform(0.01, 0.03))
        return False


def keep_first_per_key(rows: pa.Table, key: str) -> pa.Table:
    """Return the first row of each key: Lance refuses duplicates within one merge."""
    seen_keys: set[str] = set()
    kept_indices = []
    for index, value in enumerate(rows.column(key).to_pylist()):
        if value not in seen_keys:
            seen_keys.add(value)
            kept_indices.append(index)
    return rows if len(kept_indices) == len(rows) else rows.take(kept_indices)
