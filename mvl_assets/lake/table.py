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

from mvl_assets.common.digest import DigestSum, row_hashes
from mvl_assets.lake import sql
from mvl_assets.lake.durable import Syncer, is_torn, local_path, mend
from mvl_assets.lake.errors import LakeError, SchemaMismatch, UnsafeTable, disk_errors
from mvl_assets.lake.schema import KEY_METADATA, TableSpec
from mvl_assets.lake.scratch import scratch
from mvl_assets.lake.upgrade import upgrade, version_of

# Lance's filter against concurrent duplicates holds 8,192 keys; larger merges conflict falsely and start over.
MERGE_ROWS = 5_000
RETRIES = 30


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish did. `version` is the table's version afterwards; nothing changed means no new version."""

    rows: int
    added: int
    changed: int
    removed: int
    version: int
    data_version: str

    @property
    def touched(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Table:
    """A named table below the lake's root. Cheap to make; opens on first use."""

    def __init__(self, uri: str, spec: TableSpec) -> None:
        self.uri = uri
        self.spec = spec
        # Lance's caches; None takes its default, which may grow to gigabytes.
        self.session: lance.Session | None = None
        self._dataset: lance.LanceDataset | None = None
        self._is_pinned = False
        self._lock = threading.Lock()
        self._syncer = Syncer(uri)

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
            if self._is_pinned:
                return self._dataset
            newest = self._dataset.latest_version
            if newest != self._dataset.version:
                self._dataset = self._dataset.checkout_version(newest)
            return self._dataset

    def _open_checked(self) -> lance.LanceDataset:
        path = local_path(self.uri)
        if path is not None and not (path / "_versions").is_dir():
            raise FileNotFoundError(self.uri)
        if path is not None:
            try:
                mend(path)
            except OSError as error:  # where nothing may be written, a whole table can still be read
                if is_torn(path):
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
        with disk_errors(self.uri):
            if upgrade(dataset, self.spec):
                self.sync()
                dataset = lance.dataset(self.uri, session=self.session)
        check_safe(dataset, self.spec)
        return dataset

    def pinned(self) -> Table:
        """A reader of the version that is newest now, whatever is committed later. Raises as `open` does."""
        reader = Table(self.uri, self.spec)
        reader.session, reader._dataset, reader._is_pinned = self.session, self.open(), True
        return reader

    def handle(self) -> lance.LanceDataset:
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
        self, columns: Sequence[str] | None = None, filter: str | None = None, batch_size: int = 1024, first: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """Batches of at most `batch_size` rows in the order they were written in, those before the `first` last; the
        filter runs inside Lance's scanner. Nothing for a missing table."""
        if not self.exists():
            return
        names = list(columns) if columns is not None else self.schema.names
        dataset = self.open()

        def part(offset: int | None, limit: int | None) -> Iterator[pa.RecordBatch]:
            return dataset.scanner(names, filter, limit, offset, batch_size=batch_size).to_batches()

        yield from part(first or None, None)
        if first:
            yield from part(None, first)

    def rows(
        self, columns: Sequence[str] | None = None, filter: str | None = None, batch_size: int = 1024, first: int = 0
    ) -> Iterator[dict]:
        """The same as dictionaries, one row at a time."""
        for batch in self.scan(columns, filter, batch_size, first):
            yield from batch.to_pylist()

    def newest_row(self, filter: str) -> tuple[dict | None, bool]:
        """A row that matches, from the newest version that has one, and whether that is the table's own newest."""
        if not self.exists():
            return None, False
        dataset = self.open()
        for number in sorted((v["version"] for v in dataset.versions()), reverse=True):
            found = dataset.checkout_version(number).scanner(filter=filter, limit=1).to_table().to_pylist()
            if found:
                return found[0], number == dataset.version
        return None, False

    def window(
        self, start: int, stop: int, columns: Sequence[str] | None = None, batch_size: int = 1024
    ) -> Iterator[dict]:
        """Rows `start` to `stop` in the order they were written in, as dictionaries; what is before is not read."""
        if not self.exists() or start >= stop:
            return
        names = list(columns) if columns is not None else self.schema.names
        scanner = self.open().scanner(columns=names, offset=start, limit=stop - start, batch_size=batch_size)
        for batch in scanner.to_batches():
            yield from batch.to_pylist()

    def data_version(self, filter: str | None = None) -> str:
        """An order-independent digest of the rows' content: equal rows give an equal version in any order."""
        digest = DigestSum()
        for batch in self.scan(["row_hash"], filter, 8192):
            digest.add(batch.column(0).to_pylist())
        return digest.hex()

    # -- writing ---------------------------------------------------------------------------------------------------

    def insert(self, rows: pa.Table) -> int:
        """Adds the rows whose key is not there yet and returns how many that were. Safe beside other writers.

        Rows may lack `row_hash`. Duplicate keys within `rows` keep their first row.
        """
        rows = first_per_key(self._complete(rows), self.spec.key)
        if not len(rows):
            return 0
        inserted = 0
        with disk_errors(self.uri):
            self.create()
            dataset = self.handle()
            for start in range(0, len(rows), MERGE_ROWS):
                # Without use_index(False) an index on the key would silently let two writers insert the same row.
                stats = (
                    dataset.merge_insert(self.spec.key)
                    .when_not_matched_insert_all()
                    .use_index(False)
                    .conflict_retries(RETRIES)
                    .execute(rows.slice(start, MERGE_ROWS))
                )
                inserted += stats["num_inserted_rows"]
                self.sync()
        return inserted

    def publish(self, batches: Iterable[pa.RecordBatch | pa.Table], where: str | None = None) -> Published:
        """Makes `batches` the exact content of the part of the table that matches `where`, in one commit.

        `where` is the value of the spec's partition column (None: the whole table, for specs without one). Equal
        content commits nothing, so a run that changed nothing makes nothing stale. The rows are spooled to a
        temporary file: memory holds one batch and the keys.
        """
        if (where is None) != (self.spec.partition is None):
            raise LakeError(f"{self.uri}: publish needs the value of {self.spec.partition!r}")
        condition = None if where is None else sql.equals(self.spec.partition or "", where)
        with disk_errors(self.uri), scratch("publish") as folder:
            spool = folder / "rows.arrow"
            digest = self._spool(batches, spool, where)
            self.create()
            added = changed = removed = 0
            if self.data_version(condition) != digest.hex():
                added, changed, removed = self._difference(spool, condition)
                self._settle(spool, condition, digest.hex())
            return Published(digest.count, added, changed, removed, version=self.version, data_version=digest.hex())

    def _spool(self, batches: Iterable[pa.RecordBatch | pa.Table], spool: Path, where: str | None) -> DigestSum:
        digest = DigestSum()
        seen: set[bytes] = set()
        with pa.OSFile(str(spool), "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
            for batch in batches:
                rows = self._complete(batch)
                if where is not None and len(rows):
                    values = rows.column(self.spec.partition or "").unique().to_pylist()
                    if values != [where]:
                        raise LakeError(f"{self.uri}: rows of {values} offered for partition {where!r}")
                keys = rows.column(self.spec.key).to_pylist()
                for key in keys:
                    short = bytes.fromhex(key)
                    if short in seen:
                        raise LakeError(f"{self.uri}: two rows with the key {key} in one publish")
                    seen.add(short)
                digest.add(rows.column("row_hash").to_pylist())
                writer.write_table(rows)
        return digest

    def _difference(self, spool: Path, condition: str | None) -> tuple[int, int, int]:
        """Rows added, changed and removed, by key and row hash."""
        import duckdb  # costs as much to import as a small source to take in, and most runs change nothing

        columns = [self.spec.key, "row_hash"]
        with pa.memory_map(str(spool)) as source:
            new = pa.ipc.open_file(source).read_all().select(columns)
            old = self.open().scanner(columns=columns, filter=condition).to_table()
            with duckdb.connect() as con:
                con.register("new_rows", new)
                con.register("old_rows", old)
                key = self.spec.key
                found = con.execute(
                    f"""SELECT count(*) FILTER (o.{key} IS NULL),
                               count(*) FILTER (o.row_hash <> n.row_hash),
                               count(*) FILTER (n.{key} IS NULL)
                        FROM new_rows n FULL JOIN old_rows o ON n.{key} = o.{key}"""  # noqa: S608 - names of our specs
                ).fetchone()
        assert found is not None
        return int(found[0]), int(found[1]), int(found[2])

    def _settle(self, spool: Path, condition: str | None, data_version: str) -> None:
        """Replaces the content until it is what was spooled.

        Once is enough unless another process publishes the same partition at the same moment: Lance sees no conflict
        between two commits that each add their own keys to an empty partition, and would leave both.
        """
        for _ in range(RETRIES):
            if self.data_version(condition) == data_version:
                return
            self._replace(spool, condition)
            self.sync()
        raise LakeError(f"{self.uri}: another run keeps publishing the same rows", hint="cancel one of the runs")

    def _replace(self, spool: Path, condition: str | None) -> None:
        with pa.memory_map(str(spool)) as source:
            rows = pa.ipc.open_file(source).read_all()  # memory-mapped: pages come and go, nothing is copied
            if condition is None:  # not by merge: whole tables are read in the order they were written
                lance.write_dataset(rows, self.uri, schema=self.schema, mode="overwrite")
            elif not len(rows):
                self.handle().delete(condition)
            else:
                (
                    self.handle()
                    .merge_insert(self.spec.key)
                    # What is equal stays where it is: little is written, and rows keep the order they came in.
                    .when_matched_update_all("source.row_hash <> target.row_hash")
                    .when_not_matched_insert_all()
                    .when_not_matched_by_source_delete(condition)
                    .use_index(False)
                    .conflict_retries(RETRIES)
                    .execute(rows)
                )

    def delete(self, filter: str) -> None:
        """Removes the rows that match. For purging; derived tables lose rows through `publish`."""
        if self.exists():
            with disk_errors(self.uri):
                self.handle().delete(filter)
                self.sync()

    def _complete(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """The rows as this table's schema has them, with their `row_hash`."""
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        missing = [n for n in self.schema.names if n not in table.column_names and n != "row_hash"]
        if missing:
            raise LakeError(f"{self.uri}: rows lack the columns {missing}")
        if self.spec.hashed and "row_hash" not in table.column_names:
            hashes = row_hashes(table, self.spec.content_columns)
            table = table.append_column("row_hash", pa.array(hashes, pa.string()))
        return table.select(self.schema.names).cast(self.schema)

    def create(self) -> None:
        """Makes the table when it is not there yet; losing the race to another creator is fine."""
        if self.exists():
            return
        path = local_path(self.uri)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Without retries a creation that comes second fails. With them, which is what write_dataset does even for
            # mode="create", it now and then becomes an overwrite of what the first creator has stored since.
            empty = lance.LanceOperation.Overwrite(self.schema, [])
            lance.LanceDataset.commit(self.uri, empty, max_retries=0)
        except (OSError, ValueError):
            if not self._appears():
                raise

    def _appears(self) -> bool:
        """Whether another creator's table is there within a second."""
        for _ in range(50):
            if self.exists():
                return True
            time.sleep(random.uniform(0.01, 0.03))
        return False

    def sync(self) -> None:
        """Makes what was committed survive a power cut."""
        self._syncer.sync()


def first_per_key(rows: pa.Table, key: str) -> pa.Table:
    """`rows` without later rows of a key that came before: Lance refuses duplicates within one merge."""
    seen: set[str] = set()
    keep = []
    for index, value in enumerate(rows.column(key).to_pylist()):
        if value not in seen:
            seen.add(value)
            keep.append(index)
    return rows if len(keep) == len(rows) else rows.take(keep)


def check_safe(dataset: lance.LanceDataset, spec: TableSpec) -> None:
    """Refuses a table whose key two writers could duplicate, or whose columns are not this version's.

    Raises `UnsafeTable` for a key that is no variable-length string or lacks Lance's key metadata, or that carries an
    index; `SchemaMismatch` for other columns than `spec` has.
    """
    schema = dataset.schema
    if spec.key not in schema.names:
        raise SchemaMismatch(f"{dataset.uri}: no key column {spec.key!r}", hint="is this a lake of `mvl`?")
    key = schema.field(spec.key)
    if key.type != pa.string():
        raise UnsafeTable(f"{dataset.uri}: the key {spec.key} is {key.type}, which Lance does not protect")
    if not KEY_METADATA.items() <= (key.metadata or {}).items():
        raise UnsafeTable(f"{dataset.uri}: the key {spec.key} is not declared as primary key")
    for index in dataset.describe_indices():
        if spec.key in index.field_names:
            raise UnsafeTable(
                f"{dataset.uri}: the key {spec.key} has an index ({index.name}), which undoes its protection",
                hint=f"drop it: lance.dataset({dataset.uri!r}).drop_index({index.name!r})",
            )
    found = version_of(schema)
    if found > spec.schema_version:
        raise SchemaMismatch(
            f"{dataset.uri}: made by a newer version of this program (its schema is {found}, this one's "
            f"{spec.schema_version})",
            hint="update the program, or set MVL_LAKE to another folder",
        )
    # In any order: upgraded tables have the added columns at their end.
    if found != spec.schema_version or sorted(schema.names) != sorted(spec.schema.names):
        raise SchemaMismatch(
            f"{dataset.uri}: schema version {found} with columns {schema.names}, "
            f"this program expects version {spec.schema_version} with {spec.schema.names}",
            hint="remove the table and materialise it again; answers of an older schema are worth keeping",
        )
