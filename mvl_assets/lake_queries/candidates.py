"""Candidate pool of a mixture, and seeded selection of the first n rows per category and kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import iter_arrow_batches, spill_to_duckdb
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import is_held_out

CANDIDATE_SCHEMA = pa.schema(
    [
        ("category", pa.string()),
        ("kind", pa.string()),
        ("rank", pa.string()),
        ("sample_id", pa.string()),
        ("version_id", pa.string()),
        ("rewrite_id", pa.string()),
        ("judged_id", pa.string()),
        ("source", pa.string()),
        ("modality", pa.string()),
        ("license", pa.string()),
    ]
)


SourceGroups = Mapping[str, Mapping[str, str]]
"""Group (A or B) by category and source."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A part of a mixture: `n_rows` rows of one category and kind, from `start` of their seeded order.

    Attributes:
        category: The category.
        kind: original or rewritten.
        start: First position in the seeded order.
        n_rows: Number of rows.
        repeat_index: 0, or the number of the repetition if rows are repeated.
    """

    category: str
    kind: str
    start: int
    n_rows: int
    repeat_index: int = 0


class CandidatePool:
    """All candidates of a mixture, in a database on disk."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, seed: int) -> None:
        self._con = connection
        self._seed = seed
        connection.execute(
            """CREATE TABLE ranked AS SELECT *, row_number() OVER (PARTITION BY category, kind ORDER BY rank) - 1 AS nth
               FROM rows"""
        )

    def count_candidates(self) -> dict[tuple[str, str], int]:
        """Return the number of candidates by (category, kind)."""
        count_rows = self._con.execute("SELECT category, kind, count(*) FROM ranked GROUP BY ALL").fetchall()
        return {(category, kind): count for category, kind, count in count_rows}

    def iter_selected(self, quotas: Sequence[Quota], stage: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the quotas with `row_id`, `repeat_index` and `position`, shuffled by the seed."""
        quota_table = pa.Table.from_pylist(
            [
                {
                    "category": q.category,
                    "kind": q.kind,
                    "start": q.start,
                    "stop": q.start + q.n_rows,
                    "repeat_index": q.repeat_index,
                }
                for q in quotas
                if q.n_rows
            ],
            schema=pa.schema(
                [
                    ("category", pa.string()),
                    ("kind", pa.string()),
                    ("start", pa.int64()),
                    ("stop", pa.int64()),
                    ("repeat_index", pa.int32()),
                ]
            ),
        )
        self._con.register("quota", quota_table)
        reader = self._con.sql(
            """SELECT row_number() OVER (ORDER BY shuffle, repeat_index) - 1 AS position, * EXCLUDE (shuffle) FROM (
                 SELECT r.*, q.repeat_index, md5(concat_ws('/', $seed, $stage, r.rank, q.repeat_index)) AS shuffle
                 FROM ranked r JOIN quota q
                   ON r.category = q.category AND r.kind = q.kind AND r.nth >= q.start AND r.nth < q.stop)
               ORDER BY position""",
            params={"seed": str(self._seed), "stage": stage},
        ).to_arrow_reader(4096)
        for batch in reader:
            row_ids = [
                compute_digest(stage, r["kind"], r["rewrite_id"] or r["version_id"], r["repeat_index"])
                for r in batch.select(["kind", "rewrite_id", "version_id", "repeat_index"]).to_pylist()
            ]
            yield batch.append_column("row_id", pa.array(row_ids, pa.string()))


@contextmanager
def open_candidate_pool(
    lake: Lake,
    categories: Iterable[str],
    *,
    seed: int,
    holdout_fraction: float,
    excluded_sample_ids: Iterable[str],
    groups: SourceGroups | None = None,
) -> Iterator[CandidatePool]:
    """Open the pool of all samples in the category tables that are neither held out nor excluded.

    A sample with a kept rewrite enters as that rewrite and not as itself.

    Args:
        lake: The lake.
        categories: Categories to read.
        seed: Seed of the order.
        holdout_fraction: Share of image groups that is held out for evaluation.
        excluded_sample_ids: Duplicates and contaminated samples.
        groups: If given, only sources in it are read, and rewrites only of sources in group B. Tables keep rows of
            sources that have left the catalog or changed their group.
    """
    excluded_id_bytes = {bytes.fromhex(s) for s in excluded_sample_ids}
    rows = (
        row
        for category in categories
        for source in _list_sources(lake, category)
        if groups is None or source in groups.get(category, {})
        for row in _iter_candidates(
            lake,
            category,
            source,
            seed=seed,
            holdout_fraction=holdout_fraction,
            excluded_id_bytes=excluded_id_bytes,
            is_rewritten=groups is None or groups[category][source] == "B",
        )
    )
    with spill_to_duckdb(iter_arrow_batches(rows, CANDIDATE_SCHEMA), CANDIDATE_SCHEMA) as con:
        yield CandidatePool(con, seed)


def _list_sources(lake: Lake, category: str) -> list[str]:
    sources: set[str] = set()
    for batch in lake.get_table(f"category/{category}").scan(["source"], batch_size=65536):
        sources.update(batch.column(0).unique().to_pylist())
    return sorted(sources)


def _iter_candidates(
    lake: Lake,
    category: str,
    source: str,
    *,
    seed: int,
    holdout_fraction: float,
    excluded_id_bytes: set[bytes],
    is_rewritten: bool,
) -> Iterator[dict]:
    """Yield the candidates of one source. Memory holds the ids of its rewrites, not those of the category."""
    source_filter = sql.equals("source", source)
    rewrites_by_sample: dict[str, list[tuple[str, str]]] = {}
    judged_table = lake.get_table(f"judged/{category}")
    for row in (
        judged_table.iter_rows(["judged_id", "rewrite_id", "sample_id"], f"{source_filter} AND keep")
        if is_rewritten
        else ()
    ):
        rewrites_by_sample.setdefault(row["sample_id"], []).append((row["rewrite_id"], row["judged_id"]))
    version_by_rewrite = {
        row["rewrite_id"]: row["version_id"]
        for row in lake.get_table(f"rewritten/{category}").iter_rows(["rewrite_id", "version_id"], source_filter)
    }
    columns = ["sample_id", "version_id", "source", "image_group_id", "modality", "license"]
    for row in lake.get_table(f"category/{category}").iter_rows(columns, source_filter):
        if (
            is_held_out(row.pop("image_group_id"), holdout_fraction)
            or bytes.fromhex(row["sample_id"]) in excluded_id_bytes
        ):
            continue
        # A rewrite of an older version of the sample answers a question that has changed since.
        rewrites = [
            r for r in rewrites_by_sample.get(row["sample_id"], []) if version_by_rewrite.get(r[0]) == row["version_id"]
        ]
        for rewrite_id, judged_id in rewrites:
            yield {
                **row,
                "category": category,
                "kind": "rewritten",
                "rank": compute_digest(seed, rewrite_id),
                "rewrite_id": rewrite_id,
                "judged_id": judged_id,
            }
        if not rewrites:
            yield {**row, "category": category, "kind": "original", "rank": compute_digest(seed, row["version_id"])}
