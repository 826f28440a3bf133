r"""Screenshots of web pages with their HTML: Design2Code's pairs of files, and WebSight's Parquet.

    testset_final/7.html   testset_final/7.png   testset_final/rick.jpg
    image: {bytes: ..., path: ...}  text: "<html>..."  (llm_generated_idea: ...)

Every `*.html` with the `*.png` of the same name beside it, and every `*.parquet`. One sample per page: a fixed request,
answered by the HTML as it is. `rick.jpg` is what all pictures in the pages were replaced by, and belongs to no pair. A
screenshot without HTML is `missing_html`, HTML beyond a million characters `too_large`. Cards: SALT-NLP/Design2Code,
SALT-NLP/Design2Code-hf and HuggingFaceM4/WebSight; checked against Design2Code/prompting/gpt4o.py of
NoviScl/Design2Code.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers import parquet_columns
from mvl_assets.readers.caption_turns import MAX_TEXT, asked
from mvl_assets.readers.files import files_below, find, picture_at, relative
from mvl_assets.readers.formats.llava_parquet import picture_in_row
from mvl_assets.readers.json_stream import Item
from mvl_assets.readers.registry import RowKey
from mvl_assets.readers.rows import Row, RowError, built, native_id, rows_of
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REQUEST = (
    "Write the code of this web page as one HTML file with its CSS inside. Where the page shows pictures, use rick.jpg."
)
COLUMNS = (("image",), ("text",))
PATTERNS = ("**/*.html", "**/*.png", "**/*.parquet")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in _files(source, root):
        name = relative(root, path)
        if path.suffix == ".parquet":
            for row in rows_of(name, parquet_columns.rows(path, COLUMNS)):
                yield built(row, partial(_from_parquet, root))
        elif path.suffix == ".html":
            yield built(Row(name, 0, native_id(path.stem), {}), partial(_from_files, root))
        else:
            yield Broken(name, 0, "missing_html", f"there is no {path.stem}.html beside it", native_id(path.stem))


def keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """From the names of files, and the text of Parquet; no picture is read."""
    for path in _files(source, root):
        name = relative(root, path)
        if path.suffix == ".parquet":
            for item in parquet_columns.rows(path, COLUMNS, only=("text",)):
                if isinstance(item, Item):
                    yield RowKey(name, item.position, None)
        else:
            yield RowKey(name, 0, native_id(path.stem))


def _files(source: SourceSpec, root: Path) -> list[Path]:
    """One file a pair: the HTML where there is one."""
    found = files_below(source.slug, root, *PATTERNS)
    pages = {path.with_suffix("") for path in found if path.suffix == ".html"}
    return [path for path in found if path.suffix != ".png" or path.with_suffix("") not in pages]


def _from_files(root: Path, row: Row) -> Sample:
    path = find(root, row.file, ("",))
    if path is None:
        raise RowError("missing_html", f"{row.file} is not there")
    try:
        with path.open("rb") as stream:
            data = stream.read(4 * MAX_TEXT + 1)  # no character takes more bytes; `asked` counts characters
        html = data.decode("utf-8-sig", errors="ignore" if len(data) > 4 * MAX_TEXT else "strict")
    except UnicodeDecodeError as error:
        raise RowError("bad_utf8", f"byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise RowError("missing_html", f"{row.file} cannot be read: {error.strerror}") from error
    picture = picture_at(root, row.file.removesuffix(".html") + ".png", ("",))
    return Sample(row.file, row.position, asked([(REQUEST, html)], 1), row.native_id, (picture,))


def _from_parquet(root: Path, row: Row) -> Sample:
    picture = picture_in_row(root, row.value["image"], f"{row.file}#{row.position}")
    return Sample(row.file, row.position, asked([(REQUEST, row.value["text"])], 1), None, (picture,))
