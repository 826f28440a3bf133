r"""Links with captions in Parquet; the images were fetched into `pictures/` (`url_images` says in which layouts).

    link: "https://cdn.example.org/a.png"  caption: "A harbour at dusk. In the foreground ..."  message_id: ...

Every `*.parquet` outside `pictures/`. One sample per row: a fixed neutral request, answered by the caption. The
columns go by the names that published sets use: `link` and `caption` (laion/gpt4v-dataset), `url` and `caption` (CC3M,
CC12M), `URL` and `TEXT` (LAION-5B); checked against public code that loads laion/gpt4v-dataset, and against
img2dataset's dataset_examples. A row whose image was not fetched is `missing_image` and names its link: links die, so a
few are normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.caption_turns import build_caption_turns
from mvl_assets.readers.files import format_relative_path
from mvl_assets.readers.format import Format, RowKey
from mvl_assets.readers.formats.coco_captions import QUESTION
from mvl_assets.readers.parsers import parquet_columns
from mvl_assets.readers.rows import Row, build_sample, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample
from mvl_assets.readers.url_images import UrlImageIndex, list_url_tables

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

URL_COLUMN_NAMES = ("url", "link", "URL")
CAPTION_COLUMN_NAMES = ("caption", "TEXT")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    to_sample = partial(_to_sample, UrlImageIndex(root))
    for row in _read_rows(source, root):
        yield build_sample(row, to_sample)


def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Yield the links; no image is looked for."""
    for row in _read_rows(source, root, projection=(URL_COLUMN_NAMES[0],)):
        yield RowKey(row.file, row.position, row.native_id)


def _read_rows(
    source: SourceSpec, root: Path, projection: tuple[str, ...] | None = None
) -> Iterator[Row | RejectedRow]:
    for path in list_url_tables(source.slug, root, "**/*.parquet"):
        yield from to_rows(
            format_relative_path(root, path),
            parquet_columns.iter_rows(path, (URL_COLUMN_NAMES, CAPTION_COLUMN_NAMES), projection=projection),
            URL_COLUMN_NAMES[0],
        )


def _to_sample(url_images: UrlImageIndex, row: Row) -> Sample:
    caption = row.value[CAPTION_COLUMN_NAMES[0]]
    if not isinstance(caption, str) or not caption.strip():
        raise RejectError("no_caption", "the row has no caption")
    image = url_images.resolve_image_url(row.value[URL_COLUMN_NAMES[0]])
    return Sample(row.file, row.position, build_caption_turns([(QUESTION, caption)], 1), row.native_id, (image,))


FORMAT = Format(
    row_files=("*.parquet",),
    description="the *.parquet of URLs and captions, and the images",
    read=read,
    read_keys=read_keys,
)
