r"""The Cauldron's Parquet: all images and all questions of a row together; every `*.parquet` below the folder.

    images: [{bytes: ..., path: null}]  texts: [{user: "What is it?", assistant: "A cat.", source: "vqav2"}, {...}]
    images: [{bytes: ...}, {bytes: ...}]  texts: [{user: "Which differs?", assistant: "The second.", source: "nlvr2"}]

One sample per row with all its turns. There are no ids and no markers: rows are named by file and position, and all
markers go before the first question. Dataset card: HuggingFaceM4/the_cauldron.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.files import format_relative_path, list_source_files
from mvl_assets.readers.format import Format, RowKey
from mvl_assets.readers.formats.llava_parquet import parse_image_cell
from mvl_assets.readers.parsers import parquet_columns, parquet_stream
from mvl_assets.readers.rows import Row, add_image_markers, build_sample, parse_turns, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_source_files(source, root, "**/*.parquet"):
        for row in to_rows(
            format_relative_path(root, path), parquet_columns.iter_rows(path, (("images",), ("texts",)))
        ):
            yield build_sample(row, partial(_to_sample, root))


def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Yield positions, counted from the files' footers; no row is read."""
    for path in list_source_files(source, root, "**/*.parquet"):
        name = format_relative_path(root, path)
        for position in range(parquet_stream.count_rows(path)):
            yield RowKey(name, position, None)


def _to_sample(root: Path, row: Row) -> Sample:
    texts = row.value.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, dict) for text in texts):
        raise RejectError("no_turns", "the row has no `texts`")
    turns = parse_turns(
        [
            turn
            for text in texts
            for turn in (
                {"from": "human", "value": text.get("user")},
                {"from": "gpt", "value": text.get("assistant")},
            )
        ]
    )
    images = row.value.get("images")
    if not isinstance(images, list | None):
        raise RejectError("bad_field", f"`images` holds a {type(images).__name__} where a list was expected")
    encoded_images = tuple(
        parse_image_cell(root, cell, f"{row.file}#{row.position}.{index}") for index, cell in enumerate(images or ())
    )
    return Sample(row.file, row.position, add_image_markers(turns, len(encoded_images)), None, encoded_images)


FORMAT = Format(
    row_files=("*.parquet",),
    description="*.parquet of the columns images and texts",
    read=read,
    read_keys=read_keys,
)
