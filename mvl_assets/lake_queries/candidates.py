"""The rows a mixture may choose from, and choosing the first so-many of each kind in a seeded order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.spill import batches_of, spilled
from mvl_assets.lake_queries.holdout import is_held_out

CANDIDATE = pa.schema(
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


Groups = Mapping[str, Mapping[str, str]]
"""The sources of each category, with their groups A or B."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Take `count` rows of one category and kind from position `start` of their seeded order, as copy number `copy`."""

    category: str
    kind: str
    start: int
    count: int
    copy: int = 0


class Pool:
    """All candidates of a mixture, on disk."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, seed: int) -> None:
        self._con = connection
        self._seed = seed
        connection.execute(
            """CREATE TABLE ranked AS SELECT *, row_number() OVER (PARTITION BY category, kind ORDER BY rank) - 1 AS nth
               FROM rows"""
        )

    def counts(self) -> dict[tuple[str, str], int]:
        """Available rows by (category, kind)."""
        found = self._con.execute("SELECT category, kind, count(*) FROM ranked GROUP BY ALL").fetchall()
        return {(category, kind): count for category, kind, count in found}

    def choose(self, quotas: Sequence[Quota], stage: str) -> Iterator[pa.RecordBatch]:
        """The rows of the quotas with `row_id`, `copy` and `position`, shuffled across categories by the seed."""
        wanted = pa.Table.from_pylist(
            [
                {"category": q.category, "kind": q.kind, "start": q.start, "stop": q.start + q.count, "copy": q.copy}
                for q in quotas
                if q.count
            ],
            schema=pa.schema(
                [
                    ("category", pa.string()),
                    ("kind", pa.string()),
                    ("start", pa.int64()),
                    ("stop", pa.int64()),
                    ("copy", pa.int32()),
                ]
            ),
        )
        self._con.register("quota", wanted)
        reader = self._con.sql(
            """SELECT row_number() OVER (ORDER BY shuffle, copy) - 1 AS position, * EXCLUDE (shuffle) FROM (
                 SELECT r.*, q.copy, md5(concat_ws('/', $seed, $stage, r.rank, q.copy)) AS shuffle
                 FROM ranked r JOIN quota q
                   ON r.category = q.category AND r.kind = q.kind AND r.nth >= q.start AND r.nth < q.stop)
               ORDER BY position""",
            params={"seed": str(self._seed), "stage": stage},
        ).to_arrow_reader(4096)
        for batch in reader:
            ids = [
                digest_hex(stage, r["kind"], r["rewrite_id"] or r["version_id"], r["copy"])
                for r in batch.select(["kind", "rewrite_id", "version_id", "copy"]).to_pylist()
            ]
            yield batch.append_column("row_id", pa.array(ids, pa.string()))


@contextmanager
def candidate_pool(
    lake: Lake,
    categories: Iterable[str],
    *,
    seed: int,
    holdout: float,
    excluded: Iterable[str],
    groups: Groups | None = None,
) -> Iterator[Pool]:
    """Every sample of the category tables that is not held out and not among the `excluded` sample ids.

    A sample whose rewrite was kept enters as that rewrite, never as itself too. With `groups`, sources that are not
    among them (any more) are left out, and rewrites of those that are not in group B: tables keep what was made.
    """
    dropped = {bytes.fromhex(s) for s in excluded}
    rows = (
        row
        for category in categories
        for source in _sources(lake, category)
        if groups is None or source in groups.get(category, {})
        for row in _candidates(
            lake,
            category,
            source,
            seed=seed,
            holdout=holdout,
            dropped=dropped,
            is_rewritten=groups is None or groups[category][source] == "B",
        )
    )
    with spilled(batches_of(rows, CANDIDATE), CANDIDATE) as con:
        yield Pool(con, seed)


def _sources(lake: Lake, category: str) -> list[str]:
    found: set[str] = set()
    for batch in lake.table(f"category/{category}").scan(["source"], batch_size=65536):
        found.update(batch.column(0).unique().to_pylist())
    return sorted(found)


def _candidates(
    lake: Lake, category: str, source: str, *, seed: int, holdout: float, dropped: set[bytes], is_rewritten: bool
) -> Iterator[dict]:
    """The candidates of one source: memory holds the ids of its rewrites, not those of the category."""
    own = sql.equals("source", source)
    kept: dict[str, list[tuple[str, str]]] = {}
    judged = lake.table(f"judged/{category}")
    for row in judged.rows(["judged_id", "rewrite_id", "sample_id"], f"{own} AND keep") if is_rewritten else ():
        kept.setdefault(row["sample_id"], []).append((row["rewrite_id"], row["judged_id"]))
    current = {
        row["rewrite_id"]: row["version_id"]
        for row in lake.table(f"rewritten/{category}").rows(["rewrite_id", "version_id"], own)
    }
    columns = ["sample_id", "version_id", "source", "picture_key", "modality", "license"]
    for row in lake.table(f"category/{category}").rows(columns, own):
        if is_held_out(row.pop("picture_key"), holdout) or bytes.fromhex(row["sample_id"]) in dropped:
            continue
        # A rewrite of an older version of the sample says something about a question that has changed since.
        rewrites = [r for r in kept.get(row["sample_id"], []) if current.get(r[0]) == row["version_id"]]
        for rewrite_id, judged_id in rewrites:
            yield {
                **row,
                "category": category,
                "kind": "rewritten",
                "rank": digest_hex(seed, rewrite_id),
                "rewrite_id": rewrite_id,
                "judged_id": judged_id,
            }
        if not rewrites:
            yield {**row, "category": category, "kind": "original", "rank": digest_hex(seed, row["version_id"])}
