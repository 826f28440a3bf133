"""Joined and filtered views of the tables: current samples, mixture rows with their content. All of them stream."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import open_duckdb
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.current_samples import CurrentSamples
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter, fill_mixture_table

BATCH_SIZE = 512
_SAMPLE_COLUMNS = ("version_id", "native_id", "conversations", "image_ids", "video")


def iter_current_samples(
    lake: Lake, source: str, columns: Sequence[str] | None = None, batch_size: int = BATCH_SIZE
) -> Iterator[dict[str, Any]]:
    """Yield the newest version of every sample of a source that is not withdrawn.

    Args:
        lake: The lake.
        source: The source.
        columns: Columns of `samples`; None for all.
        batch_size: Rows read at once.
    """
    column_names = columns if columns is not None else lake.get_table("samples").schema.names
    for batch in CurrentSamples(lake, source).scan(column_names, batch_size):
        yield from batch.to_pylist()


def iter_mixture_rows(
    lake: Lake, stage: str, start: int = 0, stop: int | None = None, batch_size: int = BATCH_SIZE
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a mixture by position, each with `conversations`, `image_ids` and `video`.

    Args:
        lake: The lake.
        stage: Training stage of the mixture.
        start: First position, from 0.
        stop: Position after the last; None for all.
        batch_size: Rows read at once.

    Raises:
        KeyError: A row refers to a sample or rewrite that is not stored.
    """
    table = lake.get_table(f"mixture/{stage}")
    rows = table.iter_range(start, table.count() if stop is None else stop, batch_size=batch_size)
    yield from join_samples(lake, _check_positions(rows, start), batch_size)


def _check_positions(rows: Iterator[dict[str, Any]], start: int) -> Iterator[dict[str, Any]]:
    """Check that positions come in the order of writing; a whole-table publish keeps the order of its rows."""
    for expected_position, row in enumerate(rows, start):
        if row["position"] != expected_position:
            raise ValueError(f"mixture position {row['position']} where {expected_position} was expected")
        yield row


def read_mixture_rows_by_id(lake: Lake, stage: str, row_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return mixture rows by id, as `iter_mixture_rows` yields them."""
    rows_by_row_id = lake.get_index(f"mixture/{stage}").read_rows(row_ids)
    return {r["row_id"]: r for r in join_samples(lake, iter(rows_by_row_id.values()))}


def join_samples(lake: Lake, rows: Iterator[dict[str, Any]], batch_size: int = BATCH_SIZE) -> Iterator[dict[str, Any]]:
    """Add to mixture rows the sample's images and video, and the conversation of the sample or its rewrite."""
    for batch in iter_batches(rows, batch_size):
        yield from _join_batch(lake, batch)


def read_few_rows(
    lake: Lake, table_name: str, keys: Collection[str], columns: Sequence[str] | None, partition_key: str
) -> dict[str, dict[str, Any]]:
    """Return a few rows of one partition by key, without those that are not stored.

    The partition's keys are scanned once; an index of them would take longer to build.
    """
    table = lake.get_table(table_name)
    key_column = table.spec.key_column
    column_names = None if columns is None else list(dict.fromkeys([key_column, *columns]))
    rows = table.iter_rows(column_names, sql.is_in(key_column, keys), partition_key=partition_key)
    return {row[key_column]: row for row in rows}


def read_first_mixture_rows(lake: Lake, stage: str, n_rows: int = 6) -> list[dict[str, Any]]:
    """Return the first rows of a mixture as `iter_mixture_rows` yields them, for a preview."""
    joined_rows = []
    for row in lake.get_table(f"mixture/{stage}").iter_range(0, n_rows):
        samples = read_few_rows(lake, "samples", [row["version_id"]], _SAMPLE_COLUMNS, row["source"])
        rewrites = {}
        if row["kind"] == "rewritten":
            table_name = f"rewritten/{row['category']}"
            rewrites = read_few_rows(lake, table_name, [row["rewrite_id"]], ["conversations"], row["source"])
        joined_rows.append(_join_row(row, samples, rewrites))
    return joined_rows


def _join_batch(lake: Lake, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    samples = lake.get_index("samples").read_rows([r["version_id"] for r in batch], _SAMPLE_COLUMNS)
    rewrites: dict[str, dict[str, Any]] = {}
    for category in {r["category"] for r in batch if r["kind"] == "rewritten"}:
        rewrite_ids = [r["rewrite_id"] for r in batch if r["kind"] == "rewritten" and r["category"] == category]
        rewrites |= lake.get_index(f"rewritten/{category}").read_rows(rewrite_ids, ["rewrite_id", "conversations"])
    return [_join_row(row, samples, rewrites) for row in batch]


def _join_row(
    row: dict[str, Any], samples: Mapping[str, dict[str, Any]], rewrites: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    sample = samples[row["version_id"]]
    content = rewrites[row["rewrite_id"]] if row["kind"] == "rewritten" else sample
    return {
        **row,
        "conversations": content["conversations"],
        "image_ids": sample["image_ids"] or [],
        "video": sample["video"],
    }


def list_mixture_categories(lake: Lake, stage: str) -> list[str]:
    """List the categories of a mixture, sorted."""
    categories: set[str] = set()
    for batch in lake.get_table(f"mixture/{stage}").scan(["category"], batch_size=65_536):
        categories.update(batch.column(0).unique().to_pylist())
    return sorted(categories - {None})


def summarize_composition(lake: Lake, stage: str, mixture_filter: MixtureFilter | None = None) -> list[dict[str, Any]]:
    """Return the composition of a mixture: category, source, n (rows), rewritten (of these), license (may be null)."""
    with open_duckdb() as con:
        fill_mixture_table(con, lake, stage, ["category", "source", "kind", "license"], mixture_filter)
        return (
            con.sql(
                """SELECT category, source, count(*) AS n, count(*) FILTER (kind = 'rewritten') AS rewritten,
                          any_value(license) AS license
                   FROM mixed GROUP BY category, source ORDER BY category, source"""
            )
            .to_arrow_table()
            .to_pylist()
        )


def read_first_samples(lake: Lake, source: str, n_samples: int = 6) -> list[dict[str, Any]]:
    """Return the first current samples of a source, for a preview."""
    columns = ["sample_id", "source", "native_id", "file", "position", "conversations", "image_ids"]
    return list(islice(iter_current_samples(lake, source, columns), n_samples))
