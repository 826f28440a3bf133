r"""Links with captions in Parquet; the pictures were fetched into `pictures/` (`fetched` says in which layouts).

    link: "https://cdn.example.org/a.png"  caption: "A harbour at dusk. In the foreground ..."  message_id: ...

Every `*.parquet` beside `pictures/`. One sample per row: a fixed neutral request, answered by the caption. The columns
go by the names that published sets use: `link` and `caption` (laion/gpt4v-dataset), `url` and `caption` (CC3M, CC12M),
`URL` and `TEXT` (LAION-5B); checked against public code that loads laion/gpt4v-dataset, and against img2dataset's
dataset_examples. A row whose picture is not there is `missing_picture` and names its link: links die, so a few are
normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers import parquet_columns
from mvl_assets.readers.caption_turns import asked
from mvl_assets.readers.files import relative
from mvl_assets.readers.formats.coco_captions import REQUEST
from mvl_assets.readers.registry import RowKey
from mvl_assets.readers.rows import Row, RowError, built, rows_of
from mvl_assets.readers.sample import Broken, Sample
from mvl_assets.readers.url_images import Fetched, listings

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

URL = ("url", "link", "URL")
CAPTION = ("caption", "TEXT")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    make = partial(_sample, Fetched(root))
    for row in _rows(source, root):
        yield built(row, make)


def keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """The links alone; no picture is looked for."""
    for row in _rows(source, root, only=(URL[0],)):
        yield RowKey(row.file, row.position, row.native_id)


def _rows(source: SourceSpec, root: Path, only: tuple[str, ...] | None = None) -> Iterator[Row | Broken]:
    for path in listings(source.slug, root, "**/*.parquet"):
        yield from rows_of(relative(root, path), parquet_columns.rows(path, (URL, CAPTION), only=only), URL[0])


def _sample(fetched: Fetched, row: Row) -> Sample:
    caption = row.value[CAPTION[0]]
    if not isinstance(caption, str) or not caption.strip():
        raise RowError("no_caption", "the row has no caption")
    picture = fetched.picture(row.value[URL[0]])
    return Sample(row.file, row.position, asked([(REQUEST, caption)], 1), row.native_id, (picture,))
