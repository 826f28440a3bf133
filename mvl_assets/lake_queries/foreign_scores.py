"""Scores that others gave rows: joined with the current samples, and read back as columns.

Memory stays within DuckDB's limit: both sides are streams, and the scores, of which a join holds all, spill to disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mvl_assets.common.id_array import format_ids
from mvl_assets.common.score_type import ScoreType
from mvl_assets.errors import MvlError
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import BATCH_ROWS, open_duckdb, stream_batches, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SCORES
from mvl_assets.lake_queries.current_samples import stream_current_samples

if TYPE_CHECKING:
    import duckdb

SQL_TYPES: Mapping[ScoreType, str] = {"number": "DOUBLE", "text": "VARCHAR", "boolean": "BOOLEAN"}
ARROW_TYPES: Mapping[ScoreType, pa.DataType] = {
    "number": pa.float64(),
    "text": pa.string(),
    "boolean": pa.bool_(),
}
KEY_TYPES = {"sample_id": pa.string(), "native_id": pa.string(), "file": pa.string(), "position": pa.int64()}


@dataclass(frozen=True, slots=True)
class ScoredSource:
    """How many of a source's samples have scores, and how many have none."""

    source: str
    n_scored: int
    n_unscored: int


@dataclass(frozen=True, slots=True)
class JoinedScores:
    """Scores that were joined with samples.

    Attributes:
        n_unknown: Scored rows that no current sample is.
        example: The key of one of them; empty without any.
        sources: The sources with scores, in order.
        batches: The rows of `scores/<name>` without `run_id`; to be read once.
    """

    n_unknown: int
    example: str
    sources: list[ScoredSource]
    batches: Iterator[pa.Table]


@contextmanager
def open_joined_scores(
    lake: Lake,
    batches: Iterable[pa.RecordBatch],
    keys: Sequence[str],
    columns: Mapping[str, ScoreType],
    source: str | None,
) -> Iterator[JoinedScores]:
    """Join scores with the current samples.

    Args:
        lake: The lake.
        batches: The scores: the keys, then the columns, called c0, c1, ...
        keys: Columns of `samples` that rows are found by.
        columns: The names of the scores, with their types.
        source: Only samples of this source; None for all.

    Raises:
        MvlError: A row has two different scores.
    """
    names = [f"c{number}" for number in range(len(columns))]
    types = dict(zip(names, columns.values(), strict=True))
    schema = pa.schema([*((k, KEY_TYPES[k]) for k in keys), *((n, ARROW_TYPES[t]) for n, t in types.items())])
    key_list = ", ".join(keys)
    with open_duckdb() as con:
        with stream_batches(con, "stream", batches, schema):
            con.execute("CREATE TABLE given AS SELECT DISTINCT * FROM stream")
        _require_one_score(con, key_list)
        con.execute("CREATE TABLE rated AS SELECT row_number() OVER () AS nth, * FROM given")
        con.execute("DROP TABLE given")
        condition = None if source is None else sql.equals("source", source)
        with stream_current_samples(con, lake, ["sample_id", "source", *(set(keys) - {"sample_id"})], condition):
            con.execute(
                f"""CREATE TABLE joined AS
                    SELECT s.source, r.nth, if(r.nth IS NULL, NULL, s.sample_id::UUID) AS sample_id
                    FROM current_samples s LEFT JOIN rated r USING ({key_list})"""  # noqa: S608 - names of ours
            )
        unknown = con.execute(
            f"""SELECT count(*), min(concat_ws(', row ', {key_list}))
                FROM rated WHERE nth NOT IN (SELECT nth FROM joined WHERE nth IS NOT NULL)"""  # noqa: S608 - of ours
        ).fetchall()
        counts = con.execute(
            """SELECT source, count(nth), count(*) - count(nth) FROM joined GROUP BY source HAVING count(nth) > 0
               ORDER BY source"""
        ).fetchall()
        ((n_unknown, example),) = unknown
        yield JoinedScores(
            n_unknown, example or "", [ScoredSource(*count) for count in counts], _iter_rows(con, columns, types)
        )


def _require_one_score(con: duckdb.DuckDBPyConnection, key_list: str) -> None:
    twice = con.execute(
        f"""SELECT count(*), min(example) FROM (
              SELECT concat_ws(', row ', {key_list}) AS example FROM given GROUP BY {key_list} HAVING count(*) > 1)"""  # noqa: S608 - of ours
    ).fetchall()
    ((n_twice, example),) = twice
    if n_twice:
        raise MvlError(
            f"{n_twice:,} ids are there twice with different scores, such as {example[:200]}",
            hint="leave one row of each",
        )


def _iter_rows(
    con: duckdb.DuckDBPyConnection, columns: Mapping[str, ScoreType], types: Mapping[str, ScoreType]
) -> Iterator[pa.Table]:
    values = []
    for (column, type_), name in zip(types.items(), columns, strict=True):
        parts = ", ".join(
            f'"{other}" := {column if other == type_ else f"NULL::{sql_type}"}' for other, sql_type in SQL_TYPES.items()
        )
        values.append(f"struct_pack(name := '{name}', {parts})")
    reader = con.sql(
        f"""SELECT j.sample_id, j.source, [{", ".join(values)}] AS scores
            FROM joined j JOIN rated r ON r.nth = j.nth"""  # noqa: S608 - names that `config.score_file` has checked
    ).to_arrow_reader(BATCH_ROWS)
    for batch in reader:
        yield format_ids(batch).cast(pa.schema([SCORES.columns.field(name) for name in batch.schema.names]))


def create_score_tables(
    con: duckdb.DuckDBPyConnection, lake: Lake, columns: Mapping[str, Mapping[str, ScoreType]]
) -> None:
    """Create a table `foreign_<name>` for each `scores/<name>`: `sample_id`, and the columns asked for.

    Raises:
        MvlError: The scores were never joined with the samples.
    """
    for name, types in columns.items():
        table = lake.get_table(f"{SCORES.name}/{name}")
        if not table.exists():
            raise MvlError(
                f"there is no table scores/{name}, which `where` asks for",
                hint=f"materialise scores/{name}: `mvl run --until scores`",
            )
        values = "".join(
            f""", [s."{type_}" for s in scores if s.name = '{column}'][1] AS "{column}\""""
            for column, type_ in types.items()
        )
        with stream_table(con, "stream", table, ["sample_id", "scores"]):
            con.execute(f'CREATE TABLE "foreign_{name}" AS SELECT sample_id::UUID AS sample_id {values} FROM stream')  # noqa: S608 - checked names
