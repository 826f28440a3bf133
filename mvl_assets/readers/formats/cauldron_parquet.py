r"""The Cauldron's Parquet: all pictures and all questions of a row together; every `*.parquet` below the folder.

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

from mvl_assets.readers import parquet_columns, parquet_stream
from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.formats.llava_parquet import picture_in_row
from mvl_assets.readers.registry import RowKey
from mvl_assets.readers.rows import Row, RowError, built, rows_of, turns_of, with_markers
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "**/*.parquet"):
        for row in rows_of(relative(root, path), parquet_columns.rows(path, (("images",), ("texts",)))):
            yield built(row, partial(_sample, root))


def keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Counted from the files' footers; nothing is read."""
    for path in files_below(source.slug, root, "**/*.parquet"):
        name = relative(root, path)
        for position in range(parquet_stream.row_count(path)):
            yield RowKey(name, position, None)


def _sample(root: Path, row: Row) -> Sample:
    texts = row.value.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, dict) for text in texts):
        raise RowError("no_turns", "the row has no `texts`")
    turns = turns_of(
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
        raise RowError("bad_field", f"`images` holds a {type(images).__name__} where a list was expected")
    pictures = tuple(
        picture_in_row(root, cell, f"{row.file}#{row.position}.{index}") for index, cell in enumerate(images or ())
    )
    return Sample(row.file, row.position, with_markers(turns, len(pictures)), None, pictures)
