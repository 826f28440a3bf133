r"""Formats that are tables with the images inside: Parquet as the hub and two trainers read it, and Lance.

All have the columns `id`, `image_ids` and provenance; they differ in how texts are laid out.

    parquet     messages: [{"role": "user", "content": "<image>\nWhat is it?"}, ...], images: [...]
    trl         messages: [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ...}]}, ...]
    finevision  texts: [{"user": "What is it?", "assistant": "A dog."}], images: [...]
    lance       as parquet
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_row import ExportRow, split_content, strip_image_markers
from mvl_assets.export.formats.export_format import ExportFormat, ShardTask
from mvl_assets.export.formats.table_schemas import IMAGES, build_table_schema
from mvl_assets.export.row_reader import RowGroup, iter_row_groups
from mvl_assets.export.shard_plan import Shard
from mvl_assets.lake.external_table import commit_fragments, write_table_fragment

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPED_MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))),
        ]
    )
)
_TEXTS = pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))


class TableFormat(ExportFormat):
    """Shards of Parquet whose row groups are `MAX_GROUP_ROWS` rows, or fewer with large images."""

    schema: ClassVar[pa.Schema]
    has_parquet_files: ClassVar[bool] = True
    """Whether its files are Parquet, which the card and Croissant describe column by column."""

    @abstractmethod
    def build_content(self, row: ExportRow) -> dict[str, Any]:
        """Return the columns of the row's texts."""

    def list_files(self, stage: str, shard: Shard) -> list[str]:
        return [f"{stage}/{shard.name}.parquet"]

    def list_data_files(self, stage: str) -> list[str]:
        return [f"{stage}/train-*.parquet"]

    def write_shard(self, task: ShardTask) -> None:
        (name,) = self.list_files(task.stage, task.shard)
        leaves = list_leaf_columns(self.schema)
        # The bytes of images are compressed already; a dictionary or statistics of them would be as large as they are.
        texts = [leaf for leaf in leaves if not leaf.endswith(".bytes")]
        compression = {leaf: "zstd" if leaf in texts else "none" for leaf in leaves}
        with (
            task.folder.write_file(name) as path,
            pq.ParquetWriter(
                path, self.schema, compression=compression, use_dictionary=texts, write_statistics=texts
            ) as writer,
        ):
            for table in self.iter_tables(task):
                writer.write_table(table)

    def iter_tables(self, task: ShardTask) -> Iterator[pa.Table]:
        """Yield the rows of a shard as they are written."""
        for group in iter_row_groups(task.open_lake(), task.addresses, task.image_form):
            yield self.build_table(group)

    def build_table(self, group: RowGroup) -> pa.Table:
        """Return rows with their images as a table."""
        rows = [
            {
                "id": row.row_id,
                "images": [
                    {"bytes": file.data, "path": file.name} for file in map(group.file_by_id.__getitem__, row.image_ids)
                ],
                **self.build_content(row),
                "image_ids": row.image_ids,
                **row.provenance,
            }
            for row in group.rows
        ]
        return pa.Table.from_pylist(rows, schema=self.schema)


class ParquetFormat(TableFormat):
    """The general format: messages with a marker for each image."""

    name = "parquet"
    description = "Parquet with embedded images in shards near 1 GB, as the Hugging Face hub and `datasets` read it"
    schema = build_table_schema([pa.field("images", IMAGES), pa.field("messages", _MESSAGES)])

    def build_content(self, row: ExportRow) -> dict[str, Any]:
        return {"messages": row.messages}


class TrlFormat(TableFormat):
    """Conversations of TRL's and Unsloth's trainers: content is a list of typed parts."""

    name = "trl"
    description = "Parquet with typed messages, as TRL's SFTTrainer and Unsloth read it"
    schema = build_table_schema([pa.field("images", IMAGES), pa.field("messages", _TYPED_MESSAGES)])

    def build_content(self, row: ExportRow) -> dict[str, Any]:
        return {
            "messages": [{**message, "content": split_content(message["content"])} for message in row.messages],
        }


class FineVisionFormat(TableFormat):
    """Pairs of user and assistant, as FineVision has them.

    All images stand before the text, and a system turn is lost: the format has no place for it.
    """

    name = "finevision"
    description = "Parquet in the columns of FineVision, as nanoVLM reads it"
    schema = build_table_schema([pa.field("images", IMAGES), pa.field("texts", _TEXTS)])

    def build_content(self, row: ExportRow) -> dict[str, Any]:
        texts = []
        question = None
        for message in row.messages:
            if message["role"] == "user":
                question = strip_image_markers(message["content"])
            elif message["role"] == "assistant" and question is not None:
                texts.append({"user": question, "assistant": message["content"]})
                question = None
        return {"texts": texts}


class LanceFormat(ParquetFormat):
    """A Lance table per stage, `<stage>.lance`. Shards are its fragments, and one commit makes a table of them.

    `datasets` reads them since 4.5. Without a configuration it would take the fragments' JSON files for the data.
    """

    name = "lance"
    has_parquet_files = False
    description = "a Lance table with embedded images, for random access; the hub and LanceDB read it"

    def list_files(self, stage: str, shard: Shard) -> list[str]:
        return [f"{stage}-fragments/{shard.name}.json"]

    def list_data_files(self, stage: str) -> list[str]:
        return [f"{stage}.lance/**"]

    def write_shard(self, task: ShardTask) -> None:
        uri = _build_table_uri(task.folder, task.stage)
        fragment = write_table_fragment(uri, self.schema, self.iter_tables(task))
        (name,) = self.list_files(task.stage, task.shard)
        with task.folder.write_file(name) as path:
            path.write_text(fragment, encoding="utf-8")

    def finish(self, folder: ExportFolder, stage: str, shards: Sequence[Shard]) -> None:
        fragments = []
        for shard in shards:
            (name,) = self.list_files(stage, shard)
            with folder.open_file(name) as file:
                fragments.append(json.loads(file.read()))
        commit_fragments(_build_table_uri(folder, stage), self.schema, fragments)

    def list_own_folders(self, stage: str) -> list[str]:
        return [f"{stage}-fragments"]


def list_leaf_columns(schema: pa.Schema) -> list[str]:
    """Return the paths of the columns of plain values, such as `images.list.element.bytes`, as Parquet names them."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [leaves.column(number).path for number in range(len(leaves))]


def _build_table_uri(folder: ExportFolder, stage: str) -> str:
    return f"{folder.uri}/{stage}.lance"
