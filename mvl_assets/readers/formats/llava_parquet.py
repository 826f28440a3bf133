r"""LLaVA rows in Parquet with the pictures inside, as on the Hugging Face hub; every `*.parquet` below the folder.

    id: "1"  image: {bytes: ..., path: "1.jpg"} conversations: [{from: human, value: "<image>\nWhy?"}, {from: gpt, ...}]
    id: 2    image: null                        conversations: [{role: user, content: "Hi", from: null, ...}, ...]

Seen in the wild: both key styles, all four keys with nulls, integer ids, a `data_source` or other fields inside turns,
a list in `image` or a column `images`, bytes without the struct, a null struct for text rows. Dataset cards:
lmms-lab/LLaVA-OneVision-Data and mvp-lab/LLaVA-OneVision-1.5-Instruct-Data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers import parquet_columns
from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.registry import RowKey
from mvl_assets.readers.rows import Row, RowError, built, rows_of, turns_of, with_markers
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

NEEDED = (("conversations",),)
ALSO = ("id", "image", "images")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "**/*.parquet"):
        for row in rows_of(relative(root, path), parquet_columns.rows(path, NEEDED, ALSO), "id"):
            yield built(row, partial(_sample, root))


def keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """The ids alone; no picture is read."""
    for path in files_below(source.slug, root, "**/*.parquet"):
        name = relative(root, path)
        for row in rows_of(name, parquet_columns.rows(path, NEEDED, ALSO, only=("id",)), "id"):
            yield RowKey(name, row.position, row.native_id)


def _sample(root: Path, row: Row) -> Sample:
    turns = turns_of(row.value.get("conversations"))
    found = row.value.get("image") if row.value.get("image") is not None else row.value.get("images")
    cells = found if isinstance(found, list) else [found]
    pictures = tuple(
        picture_in_row(root, cell, f"{row.file}#{row.position}.{index}")
        for index, cell in enumerate(cells)
        if cell is not None and cell != {"bytes": None, "path": None}
    )
    return Sample(row.file, row.position, with_markers(turns, len(pictures)), row.native_id, pictures)


def picture_in_row(root: Path, cell: Any, name: str) -> Picture:
    """The picture in a cell: {bytes, path}, bytes alone, or a path below the root when there are no bytes."""
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(data, bytes):
        return Picture(path if isinstance(path, str) and path else name, data=data)
    if data is None and path is not None:
        return picture_at(root, path)
    raise RowError("missing_picture", f"the picture cell holds a {type(data).__name__}")
