"""One Lance table: open, read, insert by key, publish a partition. The only place where derived tables are written.

What was paid for goes through `answers` instead, which adds the lease and the one-second rhythm.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lance
import pyarrow as pa

from mvl_assets.common.digest import DigestSum, compute_row_hashes
from mvl_assets.lake import sql
from mvl_assets.lake.durable import Fsyncer, has_torn_manifest, repair, resolve_local_path
from mvl_assets.lake.errors import LakeError, SchemaMismatch, UnsafeTable, translate_disk_errors
from mvl_assets.lake.schema import KEY_METADATA, TableSpec
from mvl_assets.lake.scratch import create_scratch_dir
from mvl_assets.lake.upgrade import read_schema_version, upgrade

# Lance's filter against concurrent duplicates holds 8,192 keys; larger merges conflict falsely and start over.
ROWS_PER_MERGE = 5_000
MAX_RETRIES = 30


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What a publish did. `version` is the table's version afterwards; nothing changed means no new version."""

    n_rows: int
    n_added: int
    n_changed: int
    n_removed: int
    version: int
    data_version: str

    @property
    def changed_anything(self) -> bool:
        return bool(self.n_added or self.n_changed or self.n_removed)


class Table:
    """A named table below the lake's root. Cheap to make; opens on first use."""

    def __init__(self, uri: str, spec: TableSpec) -> None:
        self.uri = uri
        self.spec = spec
        # Lance's caches; None takes its default, which may grow to gigabytes.
        self.session: lance.Session | None = None
        self._dataset: lance.LanceDataset | None = None
        self._is_snapshot = False
        self._lock = threading.Lock()
        self._fsyncer = Fsyncer(uri)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        return self.spec.schema

    def exists(self) -> bool:
        try:
            self.open()
        except FileNotFoundError:
            return False
        return True

    def open(self) -> lance.LanceDataset:
        """The newest version, as a handle that stays at that version and may be shared between threads.

        A torn newest version is put aside. Raises `FileNotFoundError`, `SchemaMismatch`, `UnsafeTable`, or `LakeError`
        when it is torn where nothing may be written.
        """
        with self._lock:
            if self._dataset is None:
                self._dataset = self._open_checked()
            # Never `checkout_latest`: it moves the handle under a scan of another thread, and panics when they meet.
            if self._is_snapshot:
                return self._dataset
            newest = self._dataset.latest_version
            if newest != self._dataset.version:
                self._dataset = self._dataset.checkout_version(newest)
            return self._dataset

    def _open_checked(self) -> lance.LanceDataset:
        path = resolve_local_path(self.uri)
        if path is not None and not (path / "_versions").is_dir():
            raise FileNotFoundError(self.uri)
        if path is not None:
            try:
                repair(path)
            except OSError as error:  # where nothing may be written, a whole table can still be read
                if has_torn_manifest(path):
                    raise LakeError(
                        f"{self.uri}: the newest version was not written to its end, as after a power cut",
                        hint="let a process that may write here open it: that version is put aside, the rest is kept",
                    ) from error
        try:
            dataset = lance.dataset(self.uri, session=self.session)
        except ValueError as error:
            if "not found" in str(error).lower():
                raise FileNotFoundError(self.uri) from error
            raise
        with translate_disk_errors(self.uri):
            if upgrade(dataset, self.spec):
                self.sync()
                dataset = lance.dataset(self.uri, session=self.session)
        check_schema(dataset, self.spec)
        return dataset

    def snapshot(self) -> Table:
        """A reader of the version that is newest now, whatever is committed later. Raises as `open` does."""
        reader = Table(self.uri, self.spec)
        reader.session, reader._dataset, reader._is_snapshot = self.session, self.open(), True
        return reader

    def open_writable(self) -> lance.LanceDataset:
        """The newest version as a handle of the caller's own, to commit with: Lance moves the one that commits."""
        dataset = self.open()
        return dataset.checkout_version(dataset.version)

    @property
    def version(self) -> int:
        """Lance's version number, 0 for a table that does not exist yet."""
        return self.open().version if self.exists() else 0

    def count(self, filter: str | None = None) -> int:
        return self.open().count_rows(filter) if self.exists() else 0

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        batch_size: int = 1024,
        rotate_from: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """Batches of at most `batch_size` rows in the order they were written in, those before the `rotate_from` last; the
        filter runs inside Lance's scanner. Nothing for a missing table."""
        if not self.exists():
            return
        column_names = list(columns) if columns is not None else self.schema.names
        dataset = self.open()

        def scan_range(offset: int | None, limit: int | None) -> Iterator[pa.RecordBatch]:
            return dataset.scanner(column_names, filter, limit, offset, batch_size=batch_size).to_batches()

        yield from scan_range(rotate_from or None, None)
        if rotate_from:
            yield from scan_range(None, rotate_from)

    def iter_rows(
        self,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        batch_size: int = 1024,
        rotate_from: int = 0,
    ) -> Iterator[dict]:
        """The same as dictionaries, one row at a time."""
        for batch in self.scan(columns, filter, batch_size, rotate_from):
            yield from batch.to_pylist()

    def find_latest_match(self, filter: str) -> tuple[dict | None, bool]:
        """A row that matches, from the newest version that has one, and whether that is the table's own newest."""
        if not self.exists():
            return None, False
        dataset = self.open()
        for version in sorted((v["version"] for v in dataset.versions()), reverse=True):
            matches = dataset.checkout_version(version).scanner(filter=filter, limit=1).to_table().to_pylist()
            if matches:
                return matches[0], version == dataset.version
        return None, False

    def iter_range(
        self, start: int, stop: int, columns: Sequence[str] | None = None, batch_size: int = 1024
    ) -> Iterator[dict]:
        """Rows `start` to `stop` in the order they were written in, as dictionaries; what is before is not read."""
        if not self.exists() or start >= stop:
            return
        column_names = list(columns) if columns is not None else self.schema.names
        scanner = self.open().scanner(columns=column_names, offset=start, limit=stop - start, batch_size=batch_size)
        for batch in scanner.to_batches():
            yield from batch.to_pylist()

    def compute_data_version(self, filter: str | None = None) -> str:
        """An order-independent digest of the rows' content: equal rows give an equal version in any order."""
        digest = DigestSum()
        for batch in self.scan(["row_hash"], filter, 8192):
            digest.add(batch.column(0).to_pylist())
        return digest.to_hex()

    # -- writing ---------------------------------------------------------------------------------------------------

    def insert(self, rows: pa.Table) -> int:
        """Adds the rows whose key is not there yet and returns how many that were. Safe beside other writers.

        Rows may lack `row_hash`. Duplicate keys within `n_rows` keep their first row.
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
        """Makes `batches` the exact content of the part of the table that matches `partition_key`, in one commit.

        `partition_key` is the value of the spec's partition column (None: the whole table, for specs without one). Equal
        content commits nothing, so a run that changed nothing makes nothing stale. The rows are spooled to a
        temporary file: memory holds one batch and the keys.
        """
        if (partition_key is None) != (self.spec.partition_column is None):
            raise LakeError(f"{self.uri}: publish needs the value of {self.spec.partition_column!r}")
        condition = None if partition_key is None else sql.equals(self.spec.partition_column or "", partition_key)
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
                digest.add(rows.column("row_hash").to_pylist())
                writer.write_table(rows)
        return digest

    def _compute_difference(self, spool_path: Path, condition: str | None) -> tuple[int, int, int]:
        """Rows added, changed and removed, by key and row hash."""
        import duckdb  # costs as much to import as a small source to take in, and most runs change nothing

        columns = [self.spec.key_column, "row_hash"]
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
        """Replaces the content until it is what was spooled.

        Once is enough unless another process publishes the same partition at the same moment: Lance sees no conflict
        between two commits that each add their own keys to an empty partition, and would leave both.
        """
        for _ in range(MAX_RETRIES):
            if self.compute_data_version(condition) == data_version:
                return
            self._replace(spool_path, condition)
            self.sync()
        raise LakeError(f"{self.uri}: another run keeps publishing the same rows", hint="cancel one of the runs")

    def _replace(self, spool_path: Path, condition: str | None) -> None:
        with pa.memory_map(str(spool_path)) as source:
            rows = pa.ipc.open_file(source).read_all()  # memory-mapped: pages come and go, nothing is copied
            if condition is None:  # not by merge: whole tables are read in the order they were written
                lance.write_dataset(rows, self.uri, schema=self.schema, mode="overwrite")
            elif not len(rows):
                self.open_writable().delete(condition)
            else:
                (
                    self.open_writable()
                    .merge_insert(self.spec.key_column)
                    # What is equal stays where it is: little is written, and rows keep the order they came in.
                    .when_matched_update_all("source.row_hash <> target.row_hash")
                    .when_not_matched_insert_all()
                    .when_not_matched_by_source_delete(condition)
                    .use_index(False)
                    .conflict_retries(MAX_RETRIES)
                    .execute(rows)
                )

    def delete(self, filter: str) -> None:
        """Removes the rows that match. For purging; derived tables lose rows through `publish`."""
        if self.exists():
            with translate_disk_errors(self.uri):
                self.open_writable().delete(filter)
                self.sync()

    def _conform_to_schema(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """The rows as this table's schema has them, with their `row_hash`."""
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        missing = [n for n in self.schema.names if n not in table.column_names and n != "row_hash"]
        if missing:
            raise LakeError(f"{self.uri}: rows lack the columns {missing}")
        if self.spec.has_row_hash and "row_hash" not in table.column_names:
            hashes = compute_row_hashes(table, self.spec.content_columns)
            table = table.append_column("row_hash", pa.array(hashes, pa.string()))
        return table.select(self.schema.names).cast(self.schema)

    def create(self) -> None:
        """Makes the table when it is not there yet; losing the race to another creator is fine."""
        if self.exists():
            return
        path = resolve_local_path(self.uri)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Without retries a creation that comes second fails. With them, which is what write_dataset does even for
            # mode="create", it now and then becomes an overwrite of what the first creator has stored since.
            empty = lance.LanceOperation.Overwrite(self.schema, [])
            lance.LanceDataset.commit(self.uri, empty, max_retries=0)
        except (OSError, ValueError):
            if not self._wait_until_exists():
                raise

    def _wait_until_exists(self) -> bool:
        """Whether another creator's table is there within a second."""
        for _ in range(50):
            if self.exists():
                return True
            time.sleep(random.uniform(0.01, 0.03))
        return False

    def sync(self) -> None:
        """Makes what was committed survive a power cut."""
        self._fsyncer.sync()


def keep_first_per_key(rows: pa.Table, key: str) -> pa.Table:
    """`n_rows` without later rows of a key that came before: Lance refuses duplicates within one merge."""
    seen_keys: set[str] = set()
    kept_indices = []
    for index, value in enumerate(rows.column(key).to_pylist()):
        if value not in seen_keys:
            seen_keys.add(value)
            kept_indices.append(index)
    return rows if len(kept_indices) == len(rows) else rows.take(kept_indices)


def check_schema(dataset: lance.LanceDataset, spec: TableSpec) -> None:
    """Refuses a table whose key two writers could duplicate, or whose columns are not this version's.

    Raises `UnsafeTable` for a key that is no variable-length string or lacks Lance's key metadata, or that carries an
    index; `SchemaMismatch` for other columns than `spec` has.
    """
    schema = dataset.schema
    if spec.key_column not in schema.names:
        raise SchemaMismatch(f"{dataset.uri}: no key column {spec.key_column!r}", hint="is this a lake of `mvl`?")
    key = schema.field(spec.key_column)
    if key.type != pa.string():
        raise UnsafeTable(f"{dataset.uri}: the key {spec.key_column} is {key.type}, which Lance does not protect")
    if not KEY_METADATA.items() <= (key.metadata or {}).items():
        raise UnsafeTable(f"{dataset.uri}: the key {spec.key_column} is not declared as primary key")
    for index in dataset.describe_indices():
        if spec.key_column in index.field_names:
            raise UnsafeTable(
                f"{dataset.uri}: the key {spec.key_column} has an index ({index.name}), which undoes its protection",
                hint=f"drop it: lance.dataset({dataset.uri!r}).drop_index({index.name!r})",
            )
    stored_version = read_schema_version(schema)
    if stored_version > spec.schema_version:
        raise SchemaMismatch(
            f"{dataset.uri}: made by a newer version of this program (its schema is {stored_version}, this one's "
            f"{spec.schema_version})",
            hint="update the program, or set MVL_LAKE to another folder",
        )
    # In any order: upgraded tables have the added columns at their end.
    if stored_version != spec.schema_version or sorted(schema.names) != sorted(spec.schema.names):
        raise SchemaMismatch(
            f"{dataset.uri}: schema version {stored_version} with columns {schema.names}, "
            f"this program expects version {spec.schema_version} with {spec.schema.names}",
            hint="remove the table and materialise it again; answers of an older schema are worth keeping",
        )
