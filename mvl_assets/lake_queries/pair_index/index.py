"""The index of judged pairs, opened: selections, pages, counts, and the rows in the lake that a page shows.

The connection is read-only and locked: no files, no extensions, bounded memory, and every query is interrupted after a
while, because a person may write a condition of their own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.pair_index.columns import FACET_COLUMNS, ID_COLUMNS, MAX_FACET_VALUES, NUMBER_COLUMNS
from mvl_assets.lake_queries.pair_index.filters import RANDOM_ORDER, TABLE_ORDER, PairFilter

if TYPE_CHECKING:
    import duckdb
    import lance

MEMORY_LIMIT, N_THREADS = "512MB", 2
TIMEOUT_S = 10.0
# In this order: the last ones forbid the first.
LOCKED_SETTINGS = (
    "temp_directory = ''",
    "python_enable_replacements = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "enable_external_access = false",
    "lock_configuration = true",
)
MAX_SELECTIONS = 8
"""Selections that are kept, 4 bytes for each of their pairs."""


class ConditionError(MvlError):
    """A condition that a person wrote cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The pairs of a filter in its order, as ordinals: a page of them is a slice, whatever the filter was."""

    ordinals: np.ndarray

    def __len__(self) -> int:
        return len(self.ordinals)

    def find_position(self, ordinal: int) -> int | None:
        """Return where a pair stands; None if it is not in the selection."""
        positions = np.flatnonzero(self.ordinals == ordinal)
        return int(positions[0]) if len(positions) else None


class PairIndex:
    """An index file of `build.py`, open for reading. Methods may be called from several threads.

    Attributes:
        lake: The lake.
        path: The file.
        table_versions: Versions of the tables that it was made from.
        number_columns: Its columns with a range, and their headings.
        n_rows: Its pairs.
    """

    def __init__(self, lake: Lake, path: Path) -> None:
        import duckdb

        self.lake = lake
        self.path = path
        self._con = duckdb.connect(
            str(path), read_only=True, config={"memory_limit": MEMORY_LIMIT, "threads": N_THREADS}
        )
        for setting in LOCKED_SETTINGS:
            self._con.execute(f"SET {setting}")
        self.table_versions: dict[str, int] = dict(self._con.execute("FROM table_versions").fetchall())
        self.number_columns: dict[str, str] = {
            **NUMBER_COLUMNS,
            **dict(self._con.execute("SELECT name, heading FROM number_columns").fetchall()),
        }
        ((self.n_rows,),) = self._con.execute("SELECT count(*) FROM pairs").fetchall()
        self._selections: OrderedDict[tuple[object, ...], Selection] = OrderedDict()
        self._counts: OrderedDict[tuple[object, ...], dict[str, list[tuple[str | None, int]]]] = OrderedDict()
        self._datasets: dict[str, lance.LanceDataset] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._con.close()

    # -- selecting -------------------------------------------------------------------------------------------------

    def select(self, pair_filter: PairFilter, restricted: np.ndarray | None = None, tag: object = None) -> Selection:
        """Return the pairs of a filter, from memory if it was asked before.

        Args:
            pair_filter: The filter; its words and its label are not looked at.
            restricted: Only these ordinals, in ascending order; None for all.
            tag: What `restricted` depends on besides the filter, such as the version of the labels.

        Raises:
            ConditionError: The condition cannot be evaluated, or takes too long.
        """
        key = (*pair_filter.key, tag)
        with self._lock:
            if (selection := self._selections.get(key)) is not None:
                self._selections.move_to_end(key)
                return selection
        selection = Selection(self._read_ordinals(pair_filter, restricted))
        with self._lock:
            self._selections[key] = selection
            while len(self._selections) > MAX_SELECTIONS:
                self._selections.popitem(last=False)
        return selection

    def _read_ordinals(self, pair_filter: PairFilter, restricted: np.ndarray | None) -> np.ndarray:
        if pair_filter.sort == TABLE_ORDER and pair_filter.is_empty and restricted is None:
            ordinals = np.arange(self.n_rows, dtype=np.int32)
            return ordinals[::-1] if pair_filter.is_descending else ordinals
        sort_key = {TABLE_ORDER: "ordinal", RANDOM_ORDER: f"hash(judged_id, {pair_filter.seed:d})"}.get(
            pair_filter.sort, pair_filter.sort
        )
        with self._open_rows(pair_filter, restricted) as rows:
            columns = rows.select(f"ordinal, {sort_key} AS sort_key").fetchnumpy()
        ordinals, keys = columns["ordinal"], columns["sort_key"]
        # Pairs without a value come last in both directions; ties are in the order of the table.
        is_unknown = np.ma.getmaskarray(keys)
        values = np.ma.getdata(keys)
        if values.dtype == bool or values.dtype.kind == "u":
            values = values.astype(np.float64)
        order = np.lexsort((ordinals, -values if pair_filter.is_descending else values, is_unknown))
        return np.ma.getdata(ordinals)[order].astype(np.int32)

    def count_values(
        self, pair_filter: PairFilter, restricted: np.ndarray | None = None, tag: object = None
    ) -> dict[str, list[tuple[str | None, int]]]:
        """Return the values of each facet column with their numbers of pairs, most frequent first.

        A column is counted under the conditions of all others. Arguments and errors are those of `select`.
        """
        if pair_filter.is_empty:
            return self._all_counts
        key = (*pair_filter.key[:5], tag)
        with self._lock:
            if key in self._counts:
                return self._counts[key]
        counts = {}
        for name in FACET_COLUMNS:
            with self._open_rows(pair_filter, restricted, without=name) as rows:
                counts[name] = [
                    (value, n)
                    for value, n in rows.aggregate(f"{name}::VARCHAR AS value, count(*) AS n", name)
                    .order("n DESC, value")
                    .limit(MAX_FACET_VALUES)
                    .fetchall()
                ]
        with self._lock:
            self._counts[key] = counts
            while len(self._counts) > MAX_SELECTIONS:
                self._counts.popitem(last=False)
        return counts

    @cached_property
    def _all_counts(self) -> dict[str, list[tuple[str | None, int]]]:
        rows = self._con.cursor().execute("SELECT name, value, n FROM facets").fetchall()
        return {name: [(value, n) for other, value, n in rows if other == name] for name in FACET_COLUMNS}

    @contextmanager
    def _open_rows(
        self, pair_filter: PairFilter, restricted: np.ndarray | None, without: str = ""
    ) -> Iterator[duckdb.DuckDBPyRelation]:
        """Yield the pairs of a filter as a relation; whatever is read of it is interrupted after `TIMEOUT_S`."""
        import duckdb

        if unknown := [name for name in pair_filter.number_columns if name not in self.number_columns]:
            raise ConditionError(f"there is no column {unknown[0]}", hint=f"there are {', '.join(self.number_columns)}")
        where, parameters = pair_filter.build_where(without)
        with self.open_cursor() as cursor:
            try:
                rows = cursor.sql(f"SELECT * FROM pairs WHERE {where}", params=parameters)  # noqa: S608 - names of ours
                if restricted is not None:
                    cursor.register("restricted", pa.table({"ordinal": restricted}))
                    rows = rows.filter("ordinal IN (SELECT ordinal FROM restricted)")
                if pair_filter.condition:
                    # Parsed by itself: it cannot end the statement that it becomes a part of.
                    rows = rows.filter(duckdb.SQLExpression(pair_filter.condition))
                yield rows
            except duckdb.InterruptException as error:
                raise ConditionError(
                    f"the query was stopped after {TIMEOUT_S:.0f} s", hint="narrow it by other filters"
                ) from error
            except duckdb.Error as error:
                if not pair_filter.condition:
                    raise
                raise ConditionError(
                    f"condition {pair_filter.condition!r}: {str(error).splitlines()[0]}",
                    hint="a SQL expression over the columns, such as p_yes < 0.5 AND source LIKE 'geo%'",
                ) from error

    @contextmanager
    def open_cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a cursor, whose query is interrupted after `TIMEOUT_S`."""
        cursor = self._con.cursor()
        timer = threading.Timer(TIMEOUT_S, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield cursor
        finally:
            timer.cancel()
            cursor.close()

    def find_ordinals(self, column: str, ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of pairs by one of their ids; an id of several pairs gives the first."""
        with self.open_cursor() as cursor:
            cursor.register("wanted", pa.table({"id": pa.array(ids, pa.string())}))
            rows = cursor.execute(
                f"""SELECT w.id, min(p.ordinal) FROM wanted w JOIN pairs p ON p.{column} = w.id::UUID GROUP BY w.id"""  # noqa: S608
            ).fetchall()
        return dict(rows)

    def find_rewrites(self, table_name: str, addresses: np.ndarray) -> np.ndarray:
        """Return the ordinals of the pairs whose rewrites are at these addresses of a table, ascending."""
        with self.open_cursor() as cursor:
            cursor.register("wanted", pa.table({"address": pa.array(addresses, pa.uint64())}))
            columns = cursor.execute(
                """SELECT ordinal FROM pairs WHERE category = ? AND rewrite_address IN (SELECT address FROM wanted)
                   ORDER BY ordinal""",
                [table_name.partition("/")[2]],
            ).fetchnumpy()
        return np.asarray(columns["ordinal"], dtype=np.int32)

    # -- reading ---------------------------------------------------------------------------------------------------

    def read_rows(self, ordinals: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows of the index of a few pairs, in the given order."""
        with self.open_cursor() as cursor:
            cursor.register("wanted", pa.table({"ordinal": pa.array(ordinals, pa.int32())}))
            result = cursor.execute("SELECT * FROM pairs WHERE ordinal IN (SELECT ordinal FROM wanted)")
            names = [column[0] for column in result.description]
            rows = [dict(zip(names, values, strict=True)) for values in result.fetchall()]
        for row in rows:
            row |= {name: row[name].hex for name in ID_COLUMNS if row[name] is not None}
        row_by_ordinal = {row["ordinal"]: row for row in rows}
        return [row_by_ordinal[int(ordinal)] for ordinal in ordinals]

    def take(self, table_name: str, addresses: Sequence[int | None], columns: Sequence[str]) -> list[dict | None]:
        """Return rows of a table of the lake by address, None where there is none."""
        known = sorted({address for address in addresses if address is not None})
        if not known:
            return [None] * len(addresses)
        taken = self.open_dataset(table_name)._take_rows(known, columns=list(columns)).to_pylist()
        row_by_address: Mapping[int, dict] = dict(zip(known, taken, strict=True))
        return [None if address is None else row_by_address[address] for address in addresses]

    def open_dataset(self, table_name: str) -> lance.LanceDataset:
        """Return a table at the version that the index was made from."""
        with self._lock:
            if table_name not in self._datasets:
                dataset = self.lake.get_table(table_name).open()
                self._datasets[table_name] = dataset.checkout_version(self.table_versions[table_name])
            return self._datasets[table_name]
