"""What every materialization shows: counts, table version, uri, columns, a preview. One builder for all stages."""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from mvl_assets.lake.checks import check_table
from mvl_assets.lake.columns import describe_column
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from mvl_assets.media.image import build_thumbnail

MAX_PREVIEW_IMAGES = 4
# An event stays below 60 kB; what else it shows (columns, results) takes less than 10 kB.
MAX_PREVIEW_BYTES = 50_000
MAX_CELL_CHARS = 300
MAX_ANSWER_CHARS = MAX_CELL_CHARS - 30
# A word without a break would push the columns after it out of the page.
LONG_WORD = re.compile(r"\S{40}")
MARKDOWN_ESCAPES = {ord(mark): f"&#{ord(mark)};" for mark in "&<>\\`*_{}[]()#!|~$"}
SCHEMA_CHECK = "table_is_sound"
SAMPLE_COLUMNS = ("file", "position", "question", "answer")


def build_partition_check(
    key: dg.AssetKey, name: str, partitions: dg.PartitionsDefinition | None, description: str, *, blocking: bool = False
) -> dg.AssetCheckSpec:
    """A check with a result of its own for every partition. (One result for all of them reads "not evaluated" as soon
    as two partitions are made at the same time.)"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=key, description=description, blocking=blocking, partitions_def=partitions)


def build_schema_check(key: dg.AssetKey, partitions: dg.PartitionsDefinition | None = None) -> dg.AssetCheckSpec:
    """The blocking check every table asset carries: its rows are what the schema promises."""
    description = "Columns and key protection as declared, no two rows with one key, row hashes match their rows."
    return build_partition_check(key, SCHEMA_CHECK, partitions, description, blocking=True)


def build_schema_result(key: dg.AssetKey, table: Table, partition_key: str | None = None) -> dg.AssetCheckResult:
    finding = check_table(table, partition_key)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SCHEMA_CHECK,
        passed=finding.ok,
        metadata={"rows": finding.n_rows, "problems": dg.MetadataValue.md("\n".join(finding.problems) or "none")},
    )


def build_table_metadata(
    table: Table,
    *,
    rows: int,
    partition_key: str | None = None,
    table_rows: int | None = None,
    **extra_metadata: object,
) -> dict[str, Any]:
    """The metadata all table assets share, and `extra_metadata` of the stage. None values are left out.

    `rows` are those of the partition `partition_key`, if any. `table_rows` is for an asset that shares its table with others.
    """
    counts = {"dagster/row_count": rows}
    if partition_key is not None:
        counts = {
            "dagster/row_count": table.count() if table_rows is None else table_rows,
            "dagster/partition_row_count": rows,
        }
    return {
        **counts,
        "dagster/uri": table.uri,
        "dagster/table_name": get_table_name(table),
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    f.name,
                    str(f.type),
                    description=describe_column(table.spec.name, f.name),
                    constraints=dg.TableColumnConstraints(nullable=f.nullable, unique=f.name == table.spec.key_column),
                )
                for f in table.schema
            ]
        ),
        "table_version": table.version,
        "schema_version": table.spec.schema_version,
        **{k: v for k, v in extra_metadata.items() if v is not None},
    }


def get_table_name(table: Table) -> str:
    """`samples`, `rewritten/ocr`: the name by which a lake knows its table."""
    leaf_name = table.uri.rsplit("/", 1)[-1].removesuffix(".lance")
    return table.spec.name if table.spec.name.rsplit("/", 1)[-1] == leaf_name else f"{table.spec.name}/{leaf_name}"


def render_preview(lake: Lake, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> dg.MetadataValue:
    """A markdown table of a few rows with their first picture, below `MAX_PREVIEW_BYTES` in all.

    Rows may carry `image_ids`; only the first `MAX_PREVIEW_IMAGES` of them get a thumbnail. The columns `question` and
    `answer` are the first exchange of a row's `conversations`. What comes from the data is escaped: it can neither
    break the table nor bring markup of its own.
    """
    preview_rows = [{**_extract_first_exchange(row), **row} for row in rows]
    if not preview_rows:
        return dg.MetadataValue.md("none")
    first_image_ids = [next(iter(r.get("image_ids") or []), None) for r in preview_rows]
    thumbnail_ids = list(dict.fromkeys(i for i in first_image_ids if i))[:MAX_PREVIEW_IMAGES]
    thumbnails = (
        {i: encode_data_uri(d) for i, d in lake.images.read_images(thumbnail_ids).items()} if thumbnail_ids else {}
    )
    lines = ["| | " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|---|" + "---|" * len(columns)]
    size = sum(len(line) + 1 for line in lines)
    n_thumbnails = 0
    for row, image_id in zip(preview_rows, first_image_ids, strict=True):
        thumb = ""
        # A picture that several rows share counts each time: its bytes stand in each line.
        if image_id in thumbnails and n_thumbnails < MAX_PREVIEW_IMAGES:
            thumb, n_thumbnails = f"![]({thumbnails[image_id]})", n_thumbnails + 1
        n_more_images = len(row.get("image_ids") or []) - 1
        line = (
            f"| {thumb}{f' +{n_more_images}' if n_more_images > 0 else ''} | "
            + " | ".join(escape_cell(row.get(c)) for c in columns)
            + " |"
        )
        size += len(line.encode()) + 1
        if size > MAX_PREVIEW_BYTES:
            break
        lines.append(line)
    return dg.MetadataValue.md("\n".join(lines))


def _extract_first_exchange(row: Mapping[str, Any]) -> dict[str, str]:
    turns = row.get("conversations") or []
    exchange = {"question": turns[0]["value"]} if turns else {}
    if len(turns) > 1:
        exchange["answer"] = turns[1]["value"]
    if len(turns) > 2:
        exchange["answer"] = f"{exchange['answer'][:MAX_ANSWER_CHARS]} (and {len(turns) - 2} more turns)"
    return exchange


def encode_data_uri(image: bytes) -> str:
    """A stored picture as a small JPEG that fits into an event."""
    return "data:image/jpeg;base64," + base64.b64encode(build_thumbnail(image, 96)).decode()


def escape_cell(value: object) -> str:
    """One table cell: cut to `MAX_CELL_CHARS` characters, numbers short, with all markup escaped and long words breakable."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text.split())
    text = text if len(text) <= MAX_CELL_CHARS else text[: MAX_CELL_CHARS - 1] + "…"
    return LONG_WORD.sub("\\g<0>\u200b", text).translate(MARKDOWN_ESCAPES)


def render_markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MetadataValue:
    """Small result tables (reject reasons, mixture fills) as markdown; the columns are the first row's."""
    if not rows:
        return dg.MetadataValue.md("none")
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(escape_cell(r[n]) for n in columns) + " |" for r in rows]
    return dg.MetadataValue.md("\n".join(lines))


def read_first_rows(
    table: Table, columns: Sequence[str], partition_key: str | None, n_rows: int = 6
) -> list[dict[str, Any]]:
    """The first rows of a partition, for its preview."""
    condition = table.build_partition_filter(partition_key)
    rows: list[dict[str, Any]] = []
    for row in table.iter_rows(columns, condition, n_rows):
        rows.append(row)
        if len(rows) == n_rows:
            break
    return rows


def attach_source_images(
    lake: Lake, rows: Sequence[Mapping[str, Any]], *, rewritten_category: str | None = None
) -> list[dict[str, Any]]:
    """Rows of `rewritten_category` or `judged` with their sample's pictures and `original_answer`, and the rewrite's
    conversation where it is named.

    Rows refer to their sample by `version_id`, or to their rewrite by `rewrite_id` (then give its category).
    """
    joined_rows = [dict(r) for r in rows]
    if rewritten_category is not None:
        rewrites = lake.get_index(f"rewritten/{rewritten_category}").read_rows(
            [r["rewrite_id"] for r in joined_rows], ["version_id", "conversations"]
        )
        joined_rows = [{**r, **rewrites[r["rewrite_id"]]} for r in joined_rows if r["rewrite_id"] in rewrites]
    samples_by_version = lake.get_index("samples").read_rows(
        [r["version_id"] for r in joined_rows], ["image_ids", "conversations"]
    )
    samples = [samples_by_version.get(r["version_id"], {}) for r in joined_rows]
    return [
        {**r, "image_ids": s.get("image_ids"), "original_answer": _extract_first_exchange(s).get("answer")}
        for r, s in zip(joined_rows, samples, strict=True)
    ]
