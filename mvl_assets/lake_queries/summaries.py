"""Counts over the whole lake for status pages and the summary at the end of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from mvl_assets.lake.lake import Lake


@dataclass
class CategoryLine:
    """One category: samples in its table, rewritten pairs, how many of these stay, and why the others go."""

    category: str
    rows: int = 0
    rewritten: int = 0
    judged: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def category_lines(lake: Lake) -> list[CategoryLine]:
    lines = []
    for name in lake.names("category"):
        category = name.split("/", 1)[1]
        line = CategoryLine(category, rows=lake.table(name).count())
        line.rewritten = lake.table(f"rewritten/{category}").count()
        for row in lake.table(f"judged/{category}").rows(["keep", "drop_reason"]):
            line.judged += 1
            line.kept += row["keep"]
            if row["drop_reason"]:
                line.reasons[row["drop_reason"]] += 1
        lines.append(line)
    return lines


def counts_by_source(lake: Lake) -> tuple[Counter[str], Counter[str]]:
    """Samples in use (newest version, not withdrawn) and rejects of reading, by source."""
    rejects = Counter(row["source"] for row in lake.table("rejects").rows(["source"], "stage = 'raw'"))
    table = lake.table("samples")
    # Asked first: an error inside a stream that DuckDB reads would come out as DuckDB's.
    if not table.exists():
        return Counter(), rejects
    columns = ["source", "sample_id", "revision", "withdrawn"]
    schema = pa.schema([table.schema.field(c) for c in columns])
    with duckdb.connect() as con:
        con.register("s", pa.RecordBatchReader.from_batches(schema, table.scan(columns, None, 65536)))
        found = con.execute(
            """SELECT source, count(*) FILTER (NOT gone)
               FROM (SELECT source, sample_id, arg_max(withdrawn, revision) AS gone FROM s GROUP BY ALL)
               GROUP BY source"""
        ).fetchall()
    return Counter(dict(found)), rejects


def rejects_by_stage(lake: Lake) -> Counter[str]:
    return Counter(row["stage"] for row in lake.table("rejects").rows(["stage"]))


def scores(lake: Lake) -> list[tuple[str, int, float, float | None, float]]:
    """Per checkpoint of every evaluation: name, questions, share correct, share correct over a grey picture, and what
    always giving a category's most frequent answer gets."""
    found = []
    for name in lake.names("evaluation"):
        by_checkpoint: dict[str, list[dict]] = {}
        for row in lake.table(name).rows(["checkpoint", "correct", "blank_correct", "category", "expected"]):
            by_checkpoint.setdefault(row["checkpoint"], []).append(row)
        for checkpoint, rows in by_checkpoint.items():
            blanks = [r["blank_correct"] for r in rows if r["blank_correct"] is not None]
            right = sum(bool(r["correct"]) for r in rows) / len(rows)
            answers = Counter((r["category"], r["expected"]) for r in rows)
            most: Counter[str] = Counter()
            for (category, _), times in answers.items():
                most[category] = max(most[category], times)
            blank = sum(blanks) / len(blanks) if blanks else None
            found.append((checkpoint, len(rows), right, blank, most.total() / len(rows)))
    return found
