r"""Screenshots of web pages with their HTML: Design2Code's pairs of files, and WebSight's Parquet.

    testset_final/7.html   testset_final/7.png   testset_final/rick.jpg
    image: {bytes: ..., path: ...}  text: "<html>..."  (llm_generated_idea: ...)

Every `*.html` with the `*.png` of the same name next to it, and every `*.parquet`. One sample per page: a fixed
request, answered by the HTML as it is. `rick.jpg` is what all images in the pages were replaced by, and is not part of
a pair. A screenshot without HTML is `missing_html`, HTML beyond a million characters `too_large`. Cards:
SALT-NLP/Design2Code, SALT-NLP/Design2Code-hf and HuggingFaceM4/WebSight; checked against
Design2Code/prompting/gpt4o.py of NoviScl/Design2Code.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.caption_turns import MAX_TEXT_CHARS, build_caption_turns
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_file, resolve_image
from mvl_assets.readers.format import Format, RowKey
from mvl_assets.readers.formats.llava_parquet import parse_image_cell
from mvl_assets.readers.parsers import parquet_columns
from mvl_assets.readers.parsers.json_stream import Item
from mvl_assets.readers.rows import Row, build_sample, parse_native_id, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTION = (
    "Write the code of this web page as one HTML file with its CSS inside. Where the page shows pictures, use rick.jpg."
)
REQUIRED_COLUMNS = (("image",), ("text",))
FILE_PATTERNS = ("**/*.html", "**/*.png", "**/*.parquet")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in _list_files(source, root):
        name = format_relative_path(root, path)
        if path.suffix == ".parquet":
            for row in to_rows(name, parquet_columns.iter_rows(path, REQUIRED_COLUMNS)):
                yield build_sample(row, partial(_build_sample_from_parquet, root))
        elif path.suffix == ".html":
            yield build_sample(Row(name, 0, parse_native_id(path.stem), {}), partial(_build_sample_from_files, root))
        else:
            yield RejectedRow(
                name, 0, "missing_html", f"there is no {path.stem}.html next to it", parse_native_id(path.stem)
            )


def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Yield keys from names of files and the text column of Parquet; no image is read."""
    for path in _list_files(source, root):
        name = format_relative_path(root, path)
        if path.suffix == ".parquet":
            for item in parquet_columns.iter_rows(path, REQUIRED_COLUMNS, projection=("text",)):
                if isinstance(item, Item):
                    yield RowKey(name, item.position, None)
        else:
            yield RowKey(name, 0, parse_native_id(path.stem))


def _list_files(source: SourceSpec, root: Path) -> list[Path]:
    """List one file per pair: the HTML where it exists."""
    paths = list_data_files(source.slug, root, *FILE_PATTERNS)
    html_stems = {path.with_suffix("") for path in paths if path.suffix == ".html"}
    return [path for path in paths if path.suffix != ".png" or path.with_suffix("") not in html_stems]


def _build_sample_from_files(root: Path, row: Row) -> Sample:
    path = resolve_file(root, row.file, ("",))
    if path is None:
        raise RejectError("missing_html", f"{row.file} is not there")
    try:
        with path.open("rb") as stream:
            data = stream.read(
                4 * MAX_TEXT_CHARS + 1
            )  # no character takes more bytes; `build_caption_turns` counts characters
        html = data.decode("utf-8-sig", errors="ignore" if len(data) > 4 * MAX_TEXT_CHARS else "strict")
    except UnicodeDecodeError as error:
        raise RejectError("bad_utf8", f"byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise RejectError("missing_html", f"{row.file} cannot be read: {error.strerror}") from error
    image = resolve_image(root, row.file.removesuffix(".html") + ".png", ("",))
    return Sample(row.file, row.position, build_caption_turns([(QUESTION, html)], 1), row.native_id, (image,))


def _build_sample_from_parquet(root: Path, row: Row) -> Sample:
    image = parse_image_cell(root, row.value["image"], f"{row.file}#{row.position}")
    return Sample(row.file, row.position, build_caption_turns([(QUESTION, row.value["text"])], 1), None, (image,))


FORMAT = Format(
    row_files=("*.html", "*.parquet"),
    media_files=("*.png",),
    description="one *.html and one image of the same name per page",
    read=read,
    read_keys=read_keys,
)
