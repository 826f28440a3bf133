"""Metadata and checks that all table assets share: counts, table version, URI, columns, a preview, the schema check."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import dagster as dg
import pyarrow as pa

from mvl_assets.common import metadata_keys
from mvl_assets.common.markdown import MAX_CELL_CHARS, encode_data_uri, escape_cell, format_markdown_table
from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.checks import check_table
from mvl_assets.lake.schemas.columns import describe_column
from mvl_assets.lake.table import Table
from mvl_assets.lake_queries.views import read_few_rows
from mvl_assets.media.image import build_thumbnail

MAX_PREVIEW_IMAGES = 4
# An event stays below 60 kB; what else it shows (columns, results) takes less than 10 kB.
MAX_PREVIEW_BYTES = 50_000
MAX_ANSWER_CHARS = MAX_CELL_CHARS - 30
SCHEMA_CHECK = "schema_valid"
SAMPLE_COLUMNS = ("sample_id", "file", "position", "question", "answer")
# `mvl trace` takes the beginning of an id. Whole ids would push the columns after them out of the page.
MAX_ID_CHARS = 12
MAX_PREVIEW_ROWS = 6
MAX_INLINE_COLUMNS = 3
MAX_TYPE_CHARS = 50
# Dagster shows shorter markdown within the page, in a cell of 300 pixels that clips a wide table.
MIN_DIALOG_CHARS = 1000
# Of one turn, where a cell shows a whole conversation.
MAX_TURN_CHARS = 130


def build_partition_check(
    key: dg.AssetKey, name: str, partitions: dg.PartitionsDefinition | None, description: str, *, blocking: bool = False
) -> dg.AssetCheckSpec:
    """Return a check with one result per partition.

    A single result for all partitions reads "not evaluated" as soon as two partitions are materialised at once.

    Args:
        key: The asset.
        name: Name of the check.
        partitions: Partitions of the asset; None if it has none.
        description: What passes.
        blocking: Whether a failed check stops what depends on the asset.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=key, description=description, blocking=blocking, partitions_def=partitions)


def build_schema_check(key: dg.AssetKey, partitions: dg.PartitionsDefinition | None = None) -> dg.AssetCheckSpec:
    """Return the blocking check of every table asset: its rows are what the schema promises."""
    description = "Columns and key protection as declared, no two rows with one key, row hashes match their rows."
    return build_partition_check(key, SCHEMA_CHECK, partitions, description, blocking=True)


def build_schema_result(key: dg.AssetKey, table: Table, partition_key: str | None = None) -> dg.AssetCheckResult:
    """Check the table, or one partition of it, and return the result of the schema check."""
    finding = check_table(table, partition_key)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SCHEMA_CHECK,
        passed=finding.ok,
        metadata={
            metadata_keys.ROWS: finding.n_rows,
            metadata_keys.PROBLEMS: dg.MetadataValue.md("\n".join(finding.problems) or "none"),
        },
    )


def build_table_metadata(
    table: Table,
    stage_metadata: Mapping[str, object] | None = None,
    *,
    rows: int,
    partition_key: str | None = None,
    table_rows: int | None = None,
) -> dict[str, Any]:
    """Return the metadata that all table assets share, followed by that of the stage.

    Args:
        table: The table of the asset.
        stage_metadata: Values by keys of `metadata_keys`; None values are left out.
        rows: Rows of the partition, or of the whole asset if `partition_key` is None.
        partition_key: The partition that was materialised, if any.
        table_rows: Rows of the asset, for one that shares its table with others; None counts the table.
    """
    counts = {metadata_keys.ROW_COUNT: rows}
    if partition_key is not None:
        counts = {
            metadata_keys.ROW_COUNT: table.count() if table_rows is None else table_rows,
            metadata_keys.PARTITION_ROW_COUNT: rows,
        }
    return {
        **counts,
        metadata_keys.URI: table.uri,
        metadata_keys.TABLE_NAME: get_table_name(table),
        metadata_keys.COLUMN_SCHEMA: dg.TableSchema(
            columns=[
                dg.TableColumn(
                    f.name,
                    format_column_type(f.type),
                    description=describe_column(table.spec.name, f.name) + _describe_fields(f.type),
                    constraints=dg.TableColumnConstraints(nullable=f.nullable, unique=f.name == table.spec.key_column),
                )
                for f in table.schema
            ]
        ),
        metadata_keys.TABLE_VERSION: table.version,
        metadata_keys.SCHEMA_VERSION: table.spec.schema_version,
        **{k: v for k, v in (stage_metadata or {}).items() if v is not None},
    }


def format_column_type(type_: pa.DataType) -> str:
    """Return a column's type, short enough that its description is on the page beside it."""
    text = str(type_)
    if len(text) <= MAX_TYPE_CHARS:
        return text
    return f"list<{format_column_type(type_.value_type)}>" if pa.types.is_list(type_) else "struct"


def _describe_fields(type_: pa.DataType) -> str:
    """Return the fields of a type that is shown without them."""
    if len(str(type_)) <= MAX_TYPE_CHARS:
        return ""
    struct = type_.value_type if pa.types.is_list(type_) else type_
    return f" Fields: {', '.join(struct.field(n).name for n in range(struct.num_fields))}."


def get_table_name(table: Table) -> str:
    """Return the name by which a lake knows the table, such as `samples` or `rewritten/ocr`."""
    leaf_name = table.uri.rsplit("/", 1)[-1].removesuffix(".lance")
    return table.spec.name if table.spec.name.rsplit("/", 1)[-1] == leaf_name else f"{table.spec.name}/{leaf_name}"


def render_preview(lake: Lake, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> dg.MetadataValue:
    """Return a markdown table of a few rows with their first image, below `MAX_PREVIEW_BYTES` in all.

    Rows may have `image_ids`, and their `source`; the first `MAX_PREVIEW_IMAGES` with an image get a thumbnail. The
    columns `question` and `answer` are the first exchange of a row's `conversations`; of ids only the beginning is
    shown. Values are escaped: data can neither break the table nor add markup.
    """
    preview_rows = [{**_extract_first_exchange(row), **row} for row in rows]
    if not preview_rows:
        return dg.MetadataValue.md("none")
    first_image_ids = [next(iter(r.get("image_ids") or []), None) for r in preview_rows]
    thumbnails: dict[str, str] = {}
    for row, image_id in zip(preview_rows, first_image_ids, strict=True):
        if image_id and image_id not in thumbnails and len(thumbnails) < MAX_PREVIEW_IMAGES:
            data = lake.get_images(row.get("source")).read_images([image_id])[image_id]
            thumbnails[image_id] = _build_thumbnail_uri(data)
    lines = ["| | " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|---|" + "---|" * len(columns)]
    size = sum(len(line) + 1 for line in lines)
    n_thumbnails = 0
    for row, image_id in zip(preview_rows, first_image_ids, strict=True):
        thumb = ""
        # An image that several rows share counts each time: each line holds its bytes.
        if image_id in thumbnails and n_thumbnails < MAX_PREVIEW_IMAGES:
            thumb, n_thumbnails = f"![]({thumbnails[image_id]})", n_thumbnails + 1
        n_more_images = len(row.get("image_ids") or []) - 1
        line = (
            f"| {thumb}{f' +{n_more_images}' if n_more_images > 0 else ''} | "
            + " | ".join(_format_cell(c, row.get(c)) for c in columns)
            + " |"
        )
        size += len(line.encode()) + 1
        if size > MAX_PREVIEW_BYTES:
            break
        lines.append(line)
    text = "\n".join(lines)
    return render_in_dialog(text) if len(columns) > MAX_INLINE_COLUMNS else dg.MetadataValue.md(text)


def render_in_dialog(text: str) -> dg.MarkdownMetadataValue:
    """Return markdown that Dagster shows in a dialog, which has the page's width, however short it is."""
    return dg.MarkdownMetadataValue(text.ljust(MIN_DIALOG_CHARS))


def _format_cell(column: str, value: object) -> str:
    return escape_cell(str(value)[:MAX_ID_CHARS] if column.endswith("_id") and value is not None else value)


def format_conversation(turns: Sequence[Mapping[str, str]] | None) -> str:
    """Return a conversation as one line, `question → answer`, without image markers and with its turns cut."""
    texts = [
        " ".join(turn["value"].replace(IMAGE_MARKER, " ").replace(VIDEO_MARKER, " ").split()) for turn in turns or []
    ]
    texts = [text if len(text) <= MAX_TURN_CHARS else f"{text[: MAX_TURN_CHARS - 1]}…" for text in texts]
    return " ‖ ".join(" → ".join(texts[start : start + 2]) for start in range(0, len(texts), 2))


def _extract_first_exchange(row: Mapping[str, Any]) -> dict[str, str]:
    turns = row.get("conversations") or []
    exchange = {"question": turns[0]["value"]} if turns else {}
    if len(turns) > 1:
        exchange["answer"] = turns[1]["value"]
    if len(turns) > 2:
        exchange["answer"] = f"{exchange['answer'][:MAX_ANSWER_CHARS]} (and {len(turns) - 2} more turns)"
    return exchange


def _build_thumbnail_uri(image: bytes) -> str:
    return encode_data_uri(build_thumbnail(image, 96), "image/jpeg")


def render_markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MetadataValue:
    """Return a small result table (reject reasons, mixture fills) as metadata, with the columns of the first row."""
    return dg.MetadataValue.md(format_markdown_table(rows))


def read_first_rows(
    table: Table, columns: Sequence[str], partition_key: str | None, n_rows: int = MAX_PREVIEW_ROWS
) -> list[dict[str, Any]]:
    """Return the first rows of a partition, for its preview.

    Args:
        table: The table.
        columns: Columns to read.
        partition_key: The partition; None for the whole table.
        n_rows: Largest number of rows.
    """
    return list(islice(table.iter_rows(columns, partition_key=partition_key), n_rows))


def attach_source_images(
    lake: Lake, rows: Sequence[Mapping[str, Any]], source: str, *, rewritten_category: str | None = None
) -> list[dict[str, Any]]:
    """Return rows of a rewritten or judged table with the images of their samples, and both conversations as lines.

    `original` is the sample's whole conversation: the model may have written other questions than those it read.

    Args:
        lake: The lake of the samples and rewrites.
        rows: Rows with the `version_id` of their sample or, if `rewritten_category` is given, the `rewrite_id` of their
            rewrite, whose `conversations` they get too.
        source: Source of all rows.
        rewritten_category: Category of the table that holds the rewrites.
    """
    joined_rows = [dict(r) for r in rows]
    if rewritten_category is not None:
        rewrite_ids = [r["rewrite_id"] for r in joined_rows]
        columns = ["version_id", "conversations"]
        rewrites = read_few_rows(lake, f"rewritten/{rewritten_category}", rewrite_ids, columns, source)
        joined_rows = [{**r, **rewrites[r["rewrite_id"]]} for r in joined_rows if r["rewrite_id"] in rewrites]
    version_ids = [r["version_id"] for r in joined_rows]
    samples_by_version = read_few_rows(lake, "samples", version_ids, ["image_ids", "conversations"], source)
    samples = [samples_by_version.get(r["version_id"], {}) for r in joined_rows]
    return [
        {
            **r,
            "source": source,
            "image_ids": s.get("image_ids"),
            "original": format_conversation(s.get("conversations")),
            "rewritten": format_conversation(r.get("conversations")),
        }
        for r, s in zip(joined_rows, samples, strict=True)
    ]
