r"""LLaVA rows in Parquet with the images inside, as on the Hugging Face hub; every `*.parquet` below the folder.

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

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.files import EmbeddedImage, format_relative_path, list_source_files, resolve_image
from mvl_assets.readers.format import Format, RowKey
from mvl_assets.readers.parsers import parquet_columns
from mvl_assets.readers.parsers.embedded_bytes import EmbeddedBytes
from mvl_assets.readers.rows import Row, add_image_markers, build_sample, parse_turns, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REQUIRED_COLUMNS = (("conversations",),)
IMAGE_COLUMNS = ("image", "images")
OPTIONAL_COLUMNS = ("id", *IMAGE_COLUMNS)


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_source_files(source, root, "**/*.parquet"):
        for row in to_rows(
            format_relative_path(root, path), parquet_columns.iter_rows(path, REQUIRED_COLUMNS, OPTIONAL_COLUMNS), "id"
        ):
            yield build_sample(row, partial(_to_sample, root))


def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Yield the ids; no image is read."""
    for path in list_source_files(source, root, "**/*.parquet"):
        name = format_relative_path(root, path)
        for row in to_rows(
            name, parquet_columns.iter_rows(path, REQUIRED_COLUMNS, OPTIONAL_COLUMNS, projection=("id",)), "id"
        ):
            yield RowKey(name, row.position, row.native_id)


def _to_sample(root: Path, row: Row) -> Sample:
    turns = parse_turns(row.value.get("conversations"))
    image_value = row.value.get("image") if row.value.get("image") is not None else row.value.get("images")
    cells = image_value if isinstance(image_value, list) else [image_value]
    images = tuple(
        parse_image_cell(root, cell, f"{row.file}#{row.position}.{index}")
        for index, cell in enumerate(cells)
        if cell is not None and cell != {"bytes": None, "path": None}
    )
    return Sample(row.file, row.position, add_image_markers(turns, len(images)), row.native_id, images)


def parse_image_cell(root: Path, cell: Any, name: str) -> EncodedImage:
    """Return the image in a cell: {bytes, path}, bytes alone, or a path below the root when there are no bytes.

    Bytes in Parquet stay in the file until the image is read (`parquet_images`).
    """
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(data, bytes):
        return EncodedImage(path if isinstance(path, str) and path else name, data=data)
    if isinstance(data, EmbeddedBytes):
        return EmbeddedImage(path if isinstance(path, str) and path else name, path=data.column.path, cell=data)
    if data is None and path is not None:
        return resolve_image(root, path)
    raise RejectError("missing_image", f"the image cell holds a {type(data).__name__}")


FORMAT = Format(
    row_files=("*.parquet",),
    description="*.parquet of the columns id, image and conversations",
    read=read,
    read_keys=read_keys,
)
