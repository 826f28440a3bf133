"""One Lance table: reading as `TableReader` does, inserting by key, and publishing a partition.

Answers that were paid for are written by `answers` instead, which adds the lease.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import lance
import pyarrow as pa

from mvl_assets.common.digest import KEY_SCHEME, DigestSum, compute_row_hashes
from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.errors import LakeError, translate_disk_errors
from mvl_assets.lake.schemas.tables import KEY_SCHEME_COLUMN, ROW_HASH_COLUMN
from mvl_assets.lake.storage import resolve_local_path
from mvl_assets.lake.table_reader import TableReader

# Lance's filter against concurrent duplicates holds 8,192 keys; larger merges conflict falsely and start over.
ROWS_PER_MERGE = 5_000
MAX_RETRIES = 30


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

    def insert(self, rows: pa.Table) -> int:
        """Add the rows whose key is not stored yet, and return their number. Safe with concurrent writers.

        Of several rows with one key the first is taken.
        """
        rows = keep_first_per_key(self._conform_to_schema(rows), self.spec.key_column)
        if not len(rows):
            return 0
        n_inserted = 0
        with translate_disk_errors(self.uri):
            self.create()
            dataset = self.open_writable()
            for start in range(0, len(rows), ROWS_PER_MERGE):
                # Without use_index(False) an index on the key would silently let two writers insert the same row.
                stats = (
                    dataset.merge_insert(self.spec.key_column)
                    .when_not_matched_insert_all()
                    .use_index(False)
                    .conflict_retries(MAX_RETRIES)
                    .execute(rows.slice(start, ROWS_PER_MERGE))
                )
                n_inserted += stats["num_inserted_rows"]
                self.sync()
        return n_inserted

    def publish(self, batches: Iterable[pa.RecordBatch | pa.Table], partition_key: str | None = None) -> PublishResult:
        """Make these rows the exact content of one partition, in one commit.

        Equal content commits nothing, so a run that changed nothing makes nothing stale. The rows are spooled to a
        temporary file: memory holds one batch and the keys.

        Args:
            batches: The rows; they may lack `row_hash` and `key_scheme`.
            partition_key: Value of the spec's partition column; None for a table without one, which is replaced whole.

        Raises:
            LakeError: Two rows have one key, a row is of another partition, or columns are missing.
        """
        if (partition_key is None) != (self.spec.partition_column is None):
            raise LakeError(f"{self.uri}: publish needs the value of {self.spec.partition_column!r}")
        condition = self.build_partition_filter(partition_key)
        with translate_disk_errors(self.uri), create_scratch_dir("publish") as folder:
            spool_path = folder / "rows.arrow"
            digest = self._spool(batches, spool_path, partition_key)
            self.create()
            n_added = n_changed = n_removed = 0
            if self.compute_data_version(condition) != digest.to_hex():
                n_added, n_changed, n_removed = self._compute_difference(spool_path, condition)
                self._replace_until_matches(spool_path, condition, digest.to_hex())
            return PublishResult(
                digest.n_hashes, n_added, n_changed, n_removed, version=self.version, data_version=digest.to_hex()
            )

    def _spool(
        self, batches: Iterable[pa.RecordBatch | pa.Table], spool_path: Path, partition_key: str | None
    ) -> DigestSum:
        digest = DigestSum()
        seen_keys: set[bytes] = set()
        with pa.OSFile(str(spool_path), "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
            for batch in batches:
                rows = self._conform_to_schema(batch)
                if partition_key is not None and len(rows):
                    values = rows.column(self.spec.partition_column or "").unique().to_pylist()
                    if values != [partition_key]:
                        raise LakeError(f"{self.uri}: rows of {values} offered for partition {partition_key!r}")
                keys = rows.column(self.spec.key_column).to_pylist()
                for key in keys:
                    key_bytes = bytes.fromhex(key)
                    if key_bytes in seen_keys:
                        raise LakeError(f"{self.uri}: two rows with the key {key} in one publish")
                    seen_keys.add(key_bytes)
                digest.add(rows.column(ROW_HASH_COLUMN).to_pylist())
                writer.write_table(rows)
        return digest

    def _compute_difference(self, spool_path: Path, condition: str | None) -> tuple[int, int, int]:
        """Count the rows added, changed and removed, by key and row hash."""
        import duckdb  # takes as long to import as a small source to ingest, and most runs change nothing

        columns = [self.spec.key_column, ROW_HASH_COLUMN]
        with pa.memory_map(str(spool_path)) as source:
            new_rows = pa.ipc.open_file(source).read_all().select(columns)
            old_rows = self.open().scanner(columns=columns, filter=condition).to_table()
            with duckdb.connect() as con:
                con.register("new_rows", new_rows)
                con.register("old_rows", old_rows)
                key = self.spec.key_column
                counts_row = con.execute(
                    f"""SELECT count(*) FILTER (o.{key} IS NULL),
                               count(*) FILTER (o.row_hash <> n.row_hash),
                               count(*) FILTER (n.{key} IS NULL)
                        FROM new_rows n FULL JOIN old_rows o ON n.{key} = o.{key}"""  # noqa: S608 - names of our specs
                ).fetchone()
        assert counts_row is not None
        return int(counts_row[0]), int(counts_row[1]), int(counts_row[2])

    def _replace_until_matches(self, spool_path: Path, condition: str | None, data_version: str) -> None:
        """Replace the content until it equals the spooled rows.

        Once is enough unless another process publishes the same partition at the same moment: Lance sees no conflict
        between two commits that each add their own keys to an empty partition, and would keep both.
        """
        for _ in range(MAX_RETRIES):
            if self.compute_data_version(condition) == data_version:
                return
            self._replace(spool_path, condition)
            self.sync()
        raise LakeError(f"{self.uri}: another run keeps publishing the same rows", hint="cancel one of the runs")

    def _replace(self, spool_path: Path, condition: str | None) -> None:
        with pa.memory_map(str(spool_path)) as source:
            rows = pa.ipc.open_file(source).read_all()  # memory-mapped: nothing is copied
            if condition is None:  # not by merge: whole tables are read in the order in which they were written
                lance.write_dataset(rows, self.uri, schema=self.schema, mode="overwrite")
            elif not len(rows):
                self.open_writable().delete(condition)
            else:
                (
                    self.open_writable()
                    .merge_insert(self.spec.key_column)
                    # Equal rows stay where they are: little is written, and rows keep their order.
                    .when_matched_update_all("source.row_hash <> target.row_hash")
                    .when_not_matched_insert_all()
                    .when_not_matched_by_source_delete(condition)
                    .use_index(False)
                    .conflict_retries(MAX_RETRIES)
                    .execute(rows)
                )

    def delete(self, filter: str) -> None:
        """Remove the rows that match. For purging; derived tables lose rows through `publish`."""
        if self.exists():
            with translate_disk_errors(self.uri):
                self.open_writable().delete(filter)
                self.sync()

    def _conform_to_schema(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """Order and cast the columns as the schema has them, and add `key_scheme` and `row_hash` where they are due."""
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        missing = [name for name in self.spec.columns.names if name not in table.column_names]
        if missing:
            raise LakeError(f"{self.uri}: rows lack the columns {missing}")
        if self.spec.has_key_scheme and KEY_SCHEME_COLUMN not in table.column_names:
            table = table.append_column(KEY_SCHEME_COLUMN, pa.array([KEY_SCHEME] * len(table), pa.int32()))
        if self.spec.has_row_hash and ROW_HASH_COLUMN not in table.column_names:
            hashes = compute_row_hashes(table, self.spec.content_columns)
            table = table.append_column(ROW_HASH_COLUMN, pa.array(hashes, pa.string()))
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
            lance.LanceDataset.commit(self.uri, empty, max_retries=0)
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
