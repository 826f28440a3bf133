"""Judged pairs as one flat table: image, original, rewrite, verdicts and provenance in a row of plain columns.

`iter_pairs` yields them to a notebook. `export_review` writes them as Parquet for pandas, the hub's Data Studio and
Embedding Atlas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_row import ExportRow
from mvl_assets.export.export_stage import ExportOptions, ExportResult, write_shards
from mvl_assets.export.formats.table_formats import TableFormat
from mvl_assets.export.formats.table_schemas import IMAGE, IMAGE_IDS, IMAGES, PROVENANCE_TYPES, add_features
from mvl_assets.export.row_reader import RowGroup, iter_row_groups
from mvl_assets.export.shard_plan import PART_ROWS
from mvl_assets.export.stale_exports import REVIEW
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import check_store
from mvl_assets.lake_queries.row_addresses import open_judged_addresses
from mvl_assets.lake_queries.summaries import list_criteria
from mvl_assets.model_stage.dialogue import extract_qa_pairs, format_numbered, strip_markers
from mvl_assets.stages import JUDGED

TEXT_COLUMNS = ("original_question", "original_answer", "question", "answer")
JOINED_COLUMNS = (
    "keep",
    "drop_reason",
    "keep_rule",
    "p_yes",
    "all_yes",
    "matches_reference",
    "panel",
    "content_score",
    "relevance_score",
    "scores",
    "category",
    "source",
    "task_type",
    "license",
    "native_id",
    "file",
    "sample_id",
    "judged_id",
    "prompt",
    "prompt_hash",
    "model",
    "model_revision",
    "blind",
    "judge_model",
    "judge_model_revision",
)


def iter_pairs(
    lake: Lake | str, categories: Collection[str] | None = None, max_rows: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield judged pairs with the bytes of their images, by category, source and id.

    Args:
        lake: The lake, or its root.
        categories: The categories; None for all.
        max_rows: Yield this many pairs only, drawn by the digest of their ids: the same ones each time.

    Yields:
        `id`, `images` (bytes, one for each), `image_ids`, the columns of `TEXT_COLUMNS` and `JOINED_COLUMNS`, and for
        every criterion `<criterion>_yes` and `<criterion>_p_yes`.
    """
    opened_lake = (Lake(lake) if isinstance(lake, str) else lake).snapshot()
    names = list_judged_categories(opened_lake) if categories is None else categories
    with open_judged_addresses(opened_lake, names, PART_ROWS, max_rows) as book:
        for part in range(len(book.measure_parts())):
            for group in iter_row_groups(opened_lake, book.read(part, part + 1), "raw"):
                for row in group.rows:
                    yield {
                        "id": row.row_id,
                        "images": [group.file_by_id[image_id].data for image_id in row.image_ids],
                        "image_ids": row.image_ids,
                        **build_pair_columns(row),
                    }


def export_review(
    lake: Lake,
    folder: ExportFolder,
    categories: Collection[str],
    max_rows: int | None = None,
    options: ExportOptions | None = None,
    executor: Executor | None = None,
) -> ExportResult:
    """Write judged pairs to the folder `review`; shards that are there and still right are kept.

    Args:
        lake: The lake.
        folder: Folder of the export.
        categories: The categories, in order.
        max_rows: Write this many pairs only, as `iter_pairs`.
        options: How the files are.
        executor: Writes the shards; default: the processes of this machine.
    """
    check_store(folder.uri)
    format_ = ReviewFormat(tuple(list_criteria(lake, categories)))
    with open_judged_addresses(lake, categories, PART_ROWS, max_rows) as book:
        book.require_complete()
        shards = write_shards(
            lake, REVIEW, folder, format_, book, options or ExportOptions(), executor or ProcessExecutor()
        )
    n_rows, n_images = (sum(getattr(shard, name) for shard in shards) for name in ("n_rows", "n_images"))
    return ExportResult(REVIEW, n_rows, n_images, " ".join(shard.name for shard in shards), len(shards))


def list_judged_categories(lake: Lake) -> list[str]:
    """Return the categories that have verdicts."""
    return [name.partition("/")[2] for name in lake.list_tables(JUDGED.name)]


def build_pair_columns(row: ExportRow) -> dict[str, Any]:
    """Return the columns of a pair besides its id and images: texts, verdicts, provenance."""
    joined = row.joined
    original_question, original_answer = _format_dialogue(joined["original_conversations"])
    question, answer = _format_dialogue(joined["conversations"])
    columns = {
        "original_question": original_question,
        "original_answer": original_answer,
        "question": question,
        "answer": answer,
        **{name: joined[name] for name in JOINED_COLUMNS},
        "panel": _format_panel(joined["panel"] or []),
    }
    for verdict in joined["verdicts"] or []:
        is_yes, p_yes = _get_column_names(verdict["criterion"])
        columns |= {is_yes: verdict["verdict"], p_yes: verdict["p_yes"]}
    return columns


@dataclass(frozen=True)
class ReviewFormat(TableFormat):
    """Flat Parquet: one image as a column of its own, further ones in `more_images`.

    Attributes:
        criteria: The judge's criteria, of which each has two columns.
    """

    criteria: tuple[str, ...]
    name = "review"
    description = "judged pairs as flat Parquet: image, original, rewrite, verdicts, provenance"

    @property
    def identity(self) -> Sequence[object]:
        return (*super().identity, *self.criteria)

    @property
    def schema(self) -> pa.Schema:  # type: ignore[override]  # here it depends on the criteria
        columns = [
            pa.field("id", pa.string()),
            pa.field("image", IMAGE),
            *(pa.field(name, pa.string()) for name in TEXT_COLUMNS),
        ]
        for criterion in self.criteria:
            is_yes, p_yes = _get_column_names(criterion)
            columns += [pa.field(is_yes, pa.bool_()), pa.field(p_yes, pa.float64())]
        columns += [pa.field(name, PROVENANCE_TYPES.get(name, pa.string())) for name in JOINED_COLUMNS]
        return add_features(pa.schema([*columns, IMAGE_IDS, pa.field("more_images", IMAGES)]))

    def build_content(self, row: ExportRow) -> dict[str, Any]:
        return build_pair_columns(row)

    def build_table(self, group: RowGroup) -> pa.Table:
        rows = []
        for row in group.rows:
            files = [group.file_by_id[image_id] for image_id in row.image_ids]
            images = [{"bytes": file.data, "path": file.name} for file in files]
            rows.append(
                {
                    "id": row.row_id,
                    "image": images[0] if images else None,
                    "more_images": images[1:],
                    "image_ids": row.image_ids,
                    **self.build_content(row),
                }
            )
        return pa.Table.from_pylist(rows, schema=self.schema)


def _format_dialogue(turns: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """Return questions and answers as one text each; several are numbered."""
    pairs = extract_qa_pairs(turns)
    return format_numbered([strip_markers(pair.question) for pair in pairs]), format_numbered(
        [pair.answer for pair in pairs]
    )


def _format_panel(panel: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the lowest P(yes) of each further judge as JSON."""
    return json.dumps({judge["model"]: judge["p_yes"] for judge in panel}) if panel else None


def _get_column_names(criterion: str) -> tuple[str, str]:
    name = re.sub(r"\W+", "_", criterion).lower()
    return f"{name}_yes", f"{name}_p_yes"
