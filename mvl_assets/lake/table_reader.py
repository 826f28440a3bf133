"""Reading one Lance table: the newest version or a snapshot, by scan, range or filter."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property

import lance
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.digest import KEY_SCHEME, DigestSum
from mvl_assets.lake import sql
from mvl_assets.lake.durability.durable import Fsyncer, has_torn_manifest, repair
from mvl_assets.lake.errors import LakeError, UnknownKeyScheme, translate_disk_errors, translate_store_errors
from mvl_assets.lake.fragments import get_partition_map
from mvl_assets.lake.schemas.schema_check import check_schema
from mvl_assets.lake.schemas.table_spec import KEY_SCHEME_COLUMN, ROW_HASH_COLUMN, TableSpec
from mvl_assets.lake.schemas.upgrade import upgrade
from mvl_assets.lake.storage import build_storage_options, resolve_local_path

STREAM_BATCH_SIZE = 32_768
SEARCH_BATCH_SIZE = 65_536
ROW_ADDRESS = "_rowaddr"
"""Name that Lance gives the column of row addresses."""


class TableReader:
    """A named table below the lake's root. Cheap to make; opens on first use.

    Attributes:
        uri: Folder or object-store prefix of the table.
        spec: Its columns.
        session: Lance's caches; None for Lance's default, which may grow to gigabytes.
        is_snapshot: Whether it stays at the version that it has opened first.
    """

    def __init__(
        self, uri: str, spec: TableSpec, session: lance.Session | None = None, *, is_snapshot: bool = False
    ) -> None:
        self.uri = uri
        self.spec = spec
        self.session = session
        self.is_snapshot = is_snapshot
        self._dataset: lance.LanceDataset | None = None
        self._lock = threading.Lock()
        self._fsyncer = Fsyncer(uri)
        self._partition_map = get_partition_map(uri, spec.partition_column or "")

    @property
    def schema(self) -> pa.Schema:
        """All columns as stored."""
        return self.spec.schema

    @cached_property
    def storage_options(self) -> dict[str, str] | None:
        """What Lance needs to reach the object store; None for a local disk."""
        return build_storage_options(self.uri)

    @property
    def version(self) -> int:
        """Lance's version number, 0 for a table that does not exist yet."""
        dataset = self.open_if_exists()
        return 0 if dataset is None else dataset.version

    def build_partition_filter(self, partition_key: str | None) -> str | None:
        """Return the SQL condition for the rows of one partition; None for the whole table."""
        return None if partition_key is None else sql.equals(self.spec.partition_column or "", partition_key)

    def exists(self) -> bool:
        """Return whether the table has been created. Raises as `open` does for one that cannot be read."""
        return self.open_if_exists() is not None

    def open_if_exists(self) -> lance.LanceDataset | None:
        """Return what `open` returns, or None for a table that does not exist: one listing on an object store."""
        try:
            return self.open()
        except FileNotFoundError:
            return None

    def open(self) -> lance.LanceDataset:
        """Open the newest version, as a handle that stays at that version and may be shared between threads.

        A torn newest version is set aside.

        Raises:
            FileNotFoundError: The table does not exist.
            SchemaMismatch: It has other columns than its spec.
            UnsafeTable: Its key is not protected against duplicates.
            LakeError: It is torn and nothing may be written there.
        """
        with self._lock:
            if self._dataset is None:
                self._dataset = self._open_checked()
            if self.is_snapshot:
                return self._dataset
            # Never `checkout_latest`: it moves the handle under another thread's scan, and panics when they meet.
            with translate_store_errors(self.uri):
                newest = self._dataset.latest_version
            if newest != self._dataset.version:
                self._dataset = self._dataset.checkout_version(newest)
            return self._dataset

    def _keep_handle(self, dataset: lance.LanceDataset) -> None:
        """Take the handle that a commit has returned, whose manifest need not be read again."""
        with self._lock:
            self._dataset = dataset

    def _open_checked(self) -> lance.LanceDataset:
        path = resolve_local_path(self.uri)
        if path is not None and not (path / "_versions").is_dir():
            raise FileNotFoundError(self.uri)
        if path is not None:
            try:
                repair(path)
            except OSError as error:  # on a read-only file system an intact table can still be read
                if has_torn_manifest(path):
                    raise LakeError(
                        f"{self.uri}: the newest version was not written completely, as after a power cut",
                        hint="let a process that may write here open it: that version is put aside, the rest is kept",
                    ) from error
        try:
            with translate_store_errors(self.uri):
                dataset = lance.dataset(self.uri, session=self.session, storage_options=self.storage_options)
        except ValueError as error:
            if "not found" in str(error).lower():
                raise FileNotFoundError(self.uri) from error
            raise
        with translate_disk_errors(self.uri):
            if upgrade(dataset, self.spec):
                self.sync()
                dataset = lance.dataset(self.uri, session=self.session, storage_options=self.storage_options)
        check_schema(dataset, self.spec)
        return dataset

    def snapshot(self) -> TableReader:
        """Return a reader that stays at the version that is newest now. Raises as `open` does."""
        reader = TableReader(self.uri, self.spec, self.session, is_snapshot=True)
        reader._dataset = self.open()
        reader._partition_map = self._partition_map
        return reader

    def read_version(self, version: int) -> TableReader:
        """Return a reader that stays at a version.

        Raises:
            FileNotFoundError: The table does not exist.
            LakeError: It has no such version, or no longer.
        """
        reader = self.snapshot()
        versions = [entry["version"] for entry in self.open().versions()]
        if version not in versions:
            raise LakeError(
                f"{self.uri} has no version {version}",
                hint=f"there are {', '.join(map(str, sorted(versions)))}; `mvl gc` removes old ones",
            )
        reader._dataset = self.open().checkout_version(version)
        return reader

    def sync(self, *, has_new_data: bool = True) -> None:
        """Make all commits so far survive a power cut. See `Fsyncer.sync`."""
        self._fsyncer.sync(has_new_data=has_new_data)

    def find_fragments(
        self, dataset: lance.LanceDataset, partition_key: str
    ) -> tuple[list[lance.LanceFragment], list[lance.LanceFragment]]:
        """Return the fragments with rows of one partition only, and those that hold other partitions' rows as well.

        The second list is empty in tables that only this program has written.
        """
        with self._lock:
            return self._partition_map.find_fragments(dataset, partition_key)

    def list_partitions(self) -> list[str]:
        """List the values of the partition column that have fragments, sorted."""
        dataset = self.open_if_exists()
        if dataset is None:
            return []
        with self._lock:
            return self._partition_map.list_partitions(dataset)

    def count(self, filter: str | None = None, partition_key: str | None = None) -> int:
        """Count the rows that match, of the table or of one partition; 0 for a table that does not exist."""
        dataset = self.open_if_exists()
        if dataset is None:
            return 0
        with translate_store_errors(self.uri):
            if partition_key is None:
                return dataset.count_rows(filter)
            own, mixed = self.find_fragments(dataset, partition_key)
            mixed_filter = sql.join_conditions(self.build_partition_filter(partition_key), filter)
            return sum(f.count_rows(filter) for f in own) + sum(f.count_rows(mixed_filter) for f in mixed)

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        batch_size: int = 1024,
        rotate_from: int = 0,
        partition_key: str | None = None,
        fragments: Sequence[lance.LanceFragment] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that match in the order in which they were written; nothing for a table that does not exist.

        Args:
            columns: Names of columns; None for all.
            filter: SQL condition, evaluated inside Lance's scanner.
            batch_size: Largest number of rows per batch.
            rotate_from: Start at this row, and yield the rows before it last.
            partition_key: Read the fragments of this partition only; None for the whole table.
            fragments: Read these fragments only, rather than those of a partition.
        """
        dataset = self.open_if_exists()
        if dataset is None:
            return
        column_names = list(columns) if columns is not None else self.schema.names
        if partition_key is not None:
            own, mixed = self.find_fragments(dataset, partition_key)
            fragments = sorted([*own, *mixed], key=lambda f: f.fragment_id)
            if mixed:
                filter = sql.join_conditions(self.build_partition_filter(partition_key), filter)

        if fragments is not None and not fragments:
            return

        def scan_range(offset: int | None, limit: int | None) -> Iterator[pa.RecordBatch]:
            return dataset.scanner(
                column_names, filter, limit, offset, batch_size=batch_size, fragments=fragments
            ).to_batches()

        with translate_store_errors(self.uri):
            yield from scan_range(rotate_from or None, None)
            if rotate_from:
                yield from scan_range(None, rotate_from)

    def to_reader(
        self, columns: Sequence[str], filter: str | None = None, partition_key: str | None = None
    ) -> pa.RecordBatchReader:
        """Return the rows of `scan` as an Arrow stream, for DuckDB: pushing a filter down is left to Lance."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        batches = self.scan(columns, filter, STREAM_BATCH_SIZE, partition_key=partition_key)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def iter_rows(
        self,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        batch_size: int = 1024,
        rotate_from: int = 0,
        partition_key: str | None = None,
    ) -> Iterator[dict]:
        """Yield the rows of `scan` one by one, as dictionaries.

        Args:
            columns: Names of columns; None for all.
            filter: SQL condition, evaluated inside Lance's scanner.
            batch_size: Rows read at once.
            rotate_from: Start at this row, and yield the rows before it last.
            partition_key: Read the fragments of this partition only; None for the whole table.
        """
        for batch in self.scan(columns, filter, batch_size, rotate_from, partition_key):
            yield from batch.to_pylist()

    def iter_range(
        self, start: int, stop: int, columns: Sequence[str] | None = None, batch_size: int = 1024
    ) -> Iterator[dict]:
        """Yield rows `start` to `stop` (exclusive) in the order in which they were written, reading no others.

        Args:
            start: First row, from 0.
            stop: Row after the last.
            columns: Names of columns; None for all.
            batch_size: Rows read at once.
        """
        dataset = self.open_if_exists()
        if dataset is None or start >= stop:
            return
        column_names = list(columns) if columns is not None else self.schema.names
        scanner = dataset.scanner(columns=column_names, offset=start, limit=stop - start, batch_size=batch_size)
        with translate_store_errors(self.uri):
            for batch in scanner.to_batches():
                yield from batch.to_pylist()

    def find_rows(
        self,
        column: str,
        values: pa.Array,
        columns: Sequence[str],
        fragments: Sequence[lance.LanceFragment] | None = None,
    ) -> pa.Table:
        """Return the few rows that have one of these values in a column, and their addresses (`ROW_ADDRESS`).

        One column is scanned, 0.1 to 0.2 microseconds a row; the others are read of the rows that match, at 20.

        Args:
            column: A column of strings, or of lists of strings, of which the first one counts.
            values: The values, without null.
            columns: The columns to return.
            fragments: Search these fragments of the newest version only.
        """
        dataset = self.open_if_exists()
        if dataset is None or not len(values) or (fragments is not None and not fragments):
            schema = pa.schema([self.schema.field(name) for name in columns]).append(pa.field(ROW_ADDRESS, pa.uint64()))
            return schema.empty_table()
        scanner = dataset.scanner(
            columns=[column], fragments=fragments, batch_size=SEARCH_BATCH_SIZE, with_row_address=True
        )
        matches: list[pa.Array] = []
        with translate_store_errors(self.uri):
            for batch in scanner.to_batches():
                is_match = pc.is_in(_take_first_items(batch.column(0)), value_set=values)
                matches.append(batch.column(ROW_ADDRESS).filter(is_match))
        addresses = pa.chunked_array(matches, pa.uint64()).combine_chunks()
        rows = self.read_addresses(addresses.to_pylist(), columns)
        return rows.append_column(ROW_ADDRESS, addresses)

    def read_addresses(self, addresses: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Return the rows at these addresses of the newest version, in order."""
        with translate_store_errors(self.uri):
            return self.open()._take_rows(list(addresses), columns=list(columns))

    def find_latest_match(self, filter: str) -> tuple[dict | None, bool]:
        """Find a matching row in the newest version that contains one.

        Returns:
            The row, or None, and whether that version is the table's newest.
        """
        dataset = self.open_if_exists()
        if dataset is None:
            return None, False
        for version in sorted((v["version"] for v in dataset.versions()), reverse=True):
            matches = dataset.checkout_version(version).scanner(filter=filter, limit=1).to_table().to_pylist()
            if matches:
                return matches[0], version == dataset.version
        return None, False

    def compute_data_version(self, partition_key: str | None = None) -> str:
        """Return an order-independent digest of the rows' content: equal rows in any order have an equal version."""
        digest = DigestSum()
        for batch in self.scan([ROW_HASH_COLUMN], None, 8192, partition_key=partition_key):
            digest.add(batch.column(0))
        return digest.to_hex()

    def require_known_keys(self, filter: str | None = None, partition_key: str | None = None) -> None:
        """Refuse rows whose identities were made by another `KEY_SCHEME` than this program's.

        Looked up by an id of this program's scheme, such a row would count as missing: it would be asked, and paid
        for, or ingested once more.

        Raises:
            UnknownKeyScheme: There are such rows among those that match.
        """
        other_scheme = f"{KEY_SCHEME_COLUMN} <> {KEY_SCHEME}"
        n_unknown = self.count(sql.join_conditions(filter, other_scheme), partition_key)
        if n_unknown:
            raise UnknownKeyScheme(
                f"{self.uri}: the keys of {n_unknown} rows were made by another scheme than this program's "
                f"({KEY_SCHEME}), so they cannot be matched",
                hint="use the version of the program that made them; to recreate them, move the table away",
            )


def _take_first_items(column: pa.Array) -> pa.Array:
    """Return the first item of each list, null for an empty one; other columns as they are."""
    if not pa.types.is_list(column.type):
        return column
    is_filled = pc.greater(pc.fill_null(pc.list_value_length(column), 0), 0)
    return column.values.take(pc.if_else(is_filled, column.offsets[:-1], None))
