"""What every materialization shows: counts, table version, uri, columns, a preview. One builder for all stages."""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from mvl_assets.lake import sql
from mvl_assets.lake.checks import check_table
from mvl_assets.lake.columns import describe_column
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from mvl_assets.media.image import thumbnail

PREVIEW_PICTURES = 4
# An event stays below 60 kB; what else it shows (columns, results) takes less than 10 kB.
PREVIEW_BYTES = 50_000
CELL = 300
ANSWER = CELL - 30
# A word without a break would push the columns after it out of the page.
LONG_WORD = re.compile(r"\S{40}")
ESCAPES = {ord(mark): f"&#{ord(mark)};" for mark in "&<>\\`*_{}[]()#!|~$"}
SOUND = "table_is_sound"
SAMPLE_COLUMNS = ("file", "position", "question", "answer")


def partition_check(
    key: dg.AssetKey, name: str, partitions: dg.PartitionsDefinition | None, description: str, *, blocking: bool = False
) -> dg.AssetCheckSpec:
    """A check with a result of its own for every partition. (One result for all of them reads "not evaluated" as soon
    as two partitions are made at the same time.)"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=key, description=description, blocking=blocking, partitions_def=partitions)


def sound_check(key: dg.AssetKey, partitions: dg.PartitionsDefinition | None = None) -> dg.AssetCheckSpec:
    """The blocking check every table asset carries: its rows are what the schema promises."""
    about = "Columns and key protection as declared, no two rows with one key, row hashes match their rows."
    return partition_check(key, SOUND, partitions, about, blocking=True)


def sound_result(key: dg.AssetKey, table: Table, where: str | None = None) -> dg.AssetCheckResult:
    finding = check_table(table, where)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SOUND,
        passed=finding.sound,
        metadata={"rows": finding.rows, "problems": dg.MetadataValue.md("\n".join(finding.problems) or "none")},
    )


def table_metadata(
    table: Table, *, rows: int, where: str | None = None, total: int | None = None, **facts: object
) -> dict[str, Any]:
    """The metadata all table assets share, and `facts` of the stage. None values are left out.

    `rows` are those of the partition `where`, if any. `total` is for an asset that shares its table with others.
    """
    counts = {"dagster/row_count": rows}
    if where is not None:
        counts = {
            "dagster/row_count": table.count() if total is None else total,
            "dagster/partition_row_count": rows,
        }
    return {
        **counts,
        "dagster/uri": table.uri,
        "dagster/table_name": table_name(table),
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    f.name,
                    str(f.type),
                    description=describe_column(table.spec.name, f.name),
                    constraints=dg.TableColumnConstraints(nullable=f.nullable, unique=f.name == table.spec.key),
                )
                for f in table.schema
            ]
        ),
        "table_version": table.version,
        "schema_version": table.spec.schema_version,
        **{k: v for k, v in facts.items() if v is not None},
    }


def table_name(table: Table) -> str:
    """`samples`, `rewritten/ocr`: the name by which a lake knows its table."""
    last = table.uri.rsplit("/", 1)[-1].removesuffix(".lance")
    return table.spec.name if table.spec.name.rsplit("/", 1)[-1] == last else f"{table.spec.name}/{last}"


def preview(lake: Lake, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> dg.MetadataValue:
    """A markdown table of a few rows with their first picture, below `PREVIEW_BYTES` in all.

    Rows may carry `image_ids`; only the first `PREVIEW_PICTURES` of them get a thumbnail. The columns `question` and
    `answer` are the first exchange of a row's `conversations`. What comes from the data is escaped: it can neither
    break the table nor bring markup of its own.
    """
    listed = [{**_first_exchange(row), **row} for row in rows]
    if not listed:
        return dg.MetadataValue.md("none")
    first = [next(iter(r.get("image_ids") or []), None) for r in listed]
    wanted = list(dict.fromkeys(i for i in first if i))[:PREVIEW_PICTURES]
    pictures = {i: data_uri(d) for i, d in lake.images.fetch(wanted).items()} if wanted else {}
    lines = ["| | " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|---|" + "---|" * len(columns)]
    size = sum(len(line) + 1 for line in lines)
    shown = 0
    for row, image in zip(listed, first, strict=True):
        thumb = ""
        # A picture that several rows share counts each time: its bytes stand in each line.
        if image in pictures and shown < PREVIEW_PICTURES:
            thumb, shown = f"![]({pictures[image]})", shown + 1
        more = len(row.get("image_ids") or []) - 1
        line = f"| {thumb}{f' +{more}' if more > 0 else ''} | " + " | ".join(cell(row.get(c)) for c in columns) + " |"
        size += len(line.encode()) + 1
        if size > PREVIEW_BYTES:
            break
        lines.append(line)
    return dg.MetadataValue.md("\n".join(lines))


def _first_exchange(row: Mapping[str, Any]) -> dict[str, str]:
    turns = row.get("conversations") or []
    said = {"question": turns[0]["value"]} if turns else {}
    if len(turns) > 1:
        said["answer"] = turns[1]["value"]
    if len(turns) > 2:
        said["answer"] = f"{said['answer'][:ANSWER]} (and {len(turns) - 2} more turns)"
    return said


def data_uri(picture: bytes) -> str:
    """A stored picture as a small JPEG that fits into an event."""
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail(picture, 96)).decode()


def cell(value: object) -> str:
    """One table cell: cut to `CELL` characters, numbers short, with all markup escaped and long words breakable."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text.split())
    text = text if len(text) <= CELL else text[: CELL - 1] + "…"
    return LONG_WORD.sub("\\g<0>\u200b", text).translate(ESCAPES)


def markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MetadataValue:
    """Small result tables (reject reasons, mixture fills) as markdown; the columns are the first row's."""
    if not rows:
        return dg.MetadataValue.md("none")
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(cell(r[n]) for n in names) + " |" for r in rows]
    return dg.MetadataValue.md("\n".join(lines))


def first_rows(table: Table, columns: Sequence[str], where: str | None, count: int = 6) -> list[dict[str, Any]]:
    """The first rows of a partition, for its preview."""
    condition = None if where is None else sql.equals(table.spec.partition or "", where)
    rows: list[dict[str, Any]] = []
    for row in table.rows(columns, condition, count):
        rows.append(row)
        if len(rows) == count:
            break
    return rows


def with_pictures(
    lake: Lake, rows: Sequence[Mapping[str, Any]], *, rewritten: str | None = None
) -> list[dict[str, Any]]:
    """Rows of `rewritten` or `judged` with their sample's pictures and `original_answer`, and the rewrite's
    conversation where it is named.

    Rows refer to their sample by `version_id`, or to their rewrite by `rewrite_id` (then give its category).
    """
    out = [dict(r) for r in rows]
    if rewritten is not None:
        said = lake.index(f"rewritten/{rewritten}").rows(
            [r["rewrite_id"] for r in out], ["version_id", "conversations"]
        )
        out = [{**r, **said[r["rewrite_id"]]} for r in out if r["rewrite_id"] in said]
    seen = lake.index("samples").rows([r["version_id"] for r in out], ["image_ids", "conversations"])
    samples = [seen.get(r["version_id"], {}) for r in out]
    return [
        {**r, "image_ids": s.get("image_ids"), "original_answer": _first_exchange(s).get("answer")}
        for r, s in zip(out, samples, strict=True)
    ]
