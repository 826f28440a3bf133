"""Reading across tables: the newest samples, what a mixture's rows say, what is held out.

Queries that several rooms need live here; each streams. What one row came from is in `trace`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

BATCH = 512


def superseded(lake: Lake, source: str) -> dict[str, int]:
    """For samples of a source that have more than one version or were withdrawn: the revision that counts (by
    sample id), 0 for those that are gone. Usually few; everything else is revision 1."""
    newest: dict[str, tuple[int, bool]] = {}
    condition = f"{sql.equals('source', source)} AND (revision > 1 OR withdrawn)"
    for row in lake.table("samples").rows(["sample_id", "revision", "withdrawn"], condition):
        if row["revision"] > newest.get(row["sample_id"], (0, False))[0]:
            newest[row["sample_id"]] = (row["revision"], row["withdrawn"])
    return {key: 0 if gone else revision for key, (revision, gone) in newest.items()}


def samples_now(
    lake: Lake, source: str, columns: Sequence[str] | None = None, batch_size: int = BATCH
) -> Iterator[dict[str, Any]]:
    """The newest version of every sample of a source that is not withdrawn, as dictionaries."""
    table = lake.table("samples")
    names = list(columns) if columns is not None else table.schema.names
    extra = [c for c in ("sample_id", "revision") if c not in names]
    counts = superseded(lake, source)
    condition = f"{sql.equals('source', source)} AND NOT withdrawn"
    for row in table.rows([*names, *extra], condition, batch_size):
        if counts.get(row["sample_id"], 1) == row["revision"]:
            yield {k: row[k] for k in names}


def mixture_rows(
    lake: Lake, stage: str, start: int = 0, stop: int | None = None, batch_size: int = BATCH
) -> Iterator[dict[str, Any]]:
    """The rows of a mixture in order of position, each with `conversations`, `image_ids` and `video`.

    Raises `KeyError` when a row refers to a sample or rewrite that is not there.
    """
    table = lake.table(f"mixture/{stage}")
    rows = table.window(start, table.count() if stop is None else stop, batch_size=batch_size)
    yield from resolved(lake, _in_order(rows, start), batch_size)


def _in_order(rows: Iterator[dict[str, Any]], start: int) -> Iterator[dict[str, Any]]:
    """Checks that positions come as they were written; a whole-table publish keeps the order of its rows."""
    for expected, row in enumerate(rows, start):
        if row["position"] != expected:
            raise ValueError(f"mixture position {row['position']} where {expected} was expected")
        yield row


def rows_by_id(lake: Lake, stage: str, row_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Mixture rows by id, with `conversations`, `image_ids` and `video` (see `mixture_rows`)."""
    found = lake.index(f"mixture/{stage}").rows(row_ids)
    return {r["row_id"]: r for r in resolved(lake, iter(found.values()))}


def resolved(lake: Lake, rows: Iterator[dict[str, Any]], batch_size: int = BATCH) -> Iterator[dict[str, Any]]:
    """Adds to mixture rows what they refer to: the sample's pictures, and its or its rewrite's conversation."""
    for batch in in_batches(rows, batch_size):
        yield from _resolve(lake, batch)


def in_batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Lists of at most `size` rows."""
    stream = iter(rows)
    while batch := list(islice(stream, size)):
        yield batch


def _resolve(lake: Lake, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    versions = [r["version_id"] for r in batch]
    samples = lake.index("samples").rows(versions, ["version_id", "native_id", "conversations", "image_ids", "video"])
    rewrites: dict[str, dict[str, Any]] = {}
    for category in {r["category"] for r in batch if r["kind"] == "rewritten"}:
        keys = [r["rewrite_id"] for r in batch if r["kind"] == "rewritten" and r["category"] == category]
        rewrites |= lake.index(f"rewritten/{category}").rows(keys, ["rewrite_id", "conversations"])
    out = []
    for row in batch:
        sample = samples[row["version_id"]]
        said = rewrites[row["rewrite_id"]] if row["kind"] == "rewritten" else sample
        out.append(
            {
                **row,
                "conversations": said["conversations"],
                "image_ids": sample["image_ids"] or [],
                "video": sample["video"],
            }
        )
    return out


def composition(lake: Lake, stage: str) -> list[dict[str, Any]]:
    """What a mixture holds: rows with category, source, n, rewritten (of these n) and licence (null when unknown)."""
    table = lake.table(f"mixture/{stage}")
    columns = ["category", "source", "kind", "license"]
    schema = pa.schema([table.schema.field(c) for c in columns])
    with duckdb.connect() as con:
        con.register("m", pa.RecordBatchReader.from_batches(schema, table.scan(columns, None, 65536)))
        return (
            con.sql(
                """SELECT category, source, count(*) AS n, count(*) FILTER (kind = 'rewritten') AS rewritten,
                          any_value(license) AS license
                   FROM m GROUP BY category, source ORDER BY category, source"""
            )
            .to_arrow_table()
            .to_pylist()
        )


def first_samples(lake: Lake, source: str, count: int = 6) -> list[dict[str, Any]]:
    """The first newest samples of a source, for looking at."""
    columns = ["sample_id", "native_id", "file", "position", "conversations", "image_ids"]
    return list(islice(samples_now(lake, source, columns, count), count))
