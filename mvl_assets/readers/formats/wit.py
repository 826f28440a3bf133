r"""WIT, images of Wikipedia with their captions: Google's tables, or Wikimedia's copy with the images inside.

    wit_v1.train.all-00000-of-00010.tsv.gz      language, page_url, image_url, page_title, section_title,
        hierarchical_section_title, caption_reference_description, caption_attribution_description,
        caption_alt_text_description, mime_type, ..., context_page_description, context_section_description
    data/train-00000-of-00330.parquet           image: {bytes, path}, image_url, caption_attribution_description,
        wit_features: {language: [...], page_title: [...], caption_reference_description: [...], ...}

Google's tables only link to the images, which must have been fetched into `pictures/` (`url_images` says in which
layouts). Wikimedia's copy is wikimedia/wit_base, one row per image with what every language's page says of it; copies
that hold one page a row have the same fields at the top. Kaggle's form of the competition, with base64 pixels in 200
tables in another order than the captions, is not read: wit_base holds the same images joined.

One sample per row: what the image shows, asked with the titles of article and section, answered by a caption. The
caption is the reference caption (under the image), else the attribution (on its own page), else the alternative text;
where a row holds several languages, English before the first that has one. A row without any is `no_caption`.
Specification: DATA.md of google-research-datasets/wit; the card of wikimedia/wit_base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.caption_turns import build_caption_turns
from mvl_assets.readers.conversations.regions import collapse_whitespace
from mvl_assets.readers.files import format_relative_path
from mvl_assets.readers.format import ARCHIVE_FILES, Format, RowKey
from mvl_assets.readers.formats.llava_parquet import parse_image_cell
from mvl_assets.readers.parsers import delimited, parquet_columns
from mvl_assets.readers.rows import Row, build_sample, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample
from mvl_assets.readers.url_images import UrlImageIndex, list_url_tables

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

CAPTION_COLUMNS = ("caption_reference_description", "caption_attribution_description", "caption_alt_text_description")
"""In order of preference: from the text that most reliably describes the image to the least reliable."""

TEXT_COLUMNS = ("language", "page_title", "section_title", *CAPTION_COLUMNS)


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    to_sample = partial(_to_sample, root, UrlImageIndex(root))
    for row in _read_rows(source, root, include_images=True):
        yield build_sample(row, to_sample)


def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Yield the keys: tables are read in full, of Parquet only the links."""
    for row in _read_rows(source, root, include_images=False):
        yield RowKey(row.file, row.position, row.native_id)


def _read_rows(source: SourceSpec, root: Path, *, include_images: bool) -> Iterator[Row | RejectedRow]:
    for path in list_url_tables(source.slug, root, "**/*.tsv", "**/*.tsv.gz", "**/*.parquet"):
        if path.suffix == ".parquet":
            required = (("image_url",), ("image",), ("wit_features", CAPTION_COLUMNS[0]))
            items = parquet_columns.iter_rows(path, required, TEXT_COLUMNS, None if include_images else ("image_url",))
        else:
            items = delimited.iter_rows(path, "\t", ("image_url", "page_title", *CAPTION_COLUMNS))
        yield from to_rows(format_relative_path(root, path), items, "image_url")


def _to_sample(root: Path, url_images: UrlImageIndex, row: Row) -> Sample:
    page, caption = _select_caption(row.value)
    title, section = (collapse_whitespace(page.get(field)) for field in ("page_title", "section_title"))
    section_phrase = f', section "{section}"' if section else ""
    question = f'This picture is shown in the Wikipedia article "{title}"{section_phrase}. What does it show?'
    if not title:
        question = "What does this picture show?"
    turns = build_caption_turns([(question, caption)], 1)
    return Sample(row.file, row.position, turns, row.native_id, (_resolve_row_image(root, url_images, row),))


def _resolve_row_image(root: Path, url_images: UrlImageIndex, row: Row) -> EncodedImage:
    if "image" not in row.value:
        return url_images.resolve_image_url(row.value.get("image_url"))
    return parse_image_cell(root, row.value["image"], f"{row.file}#{row.position}")


def _select_caption(value: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return a page's fields and its caption of the image. Raises `RejectError("no_caption")`."""
    pages = sorted(_parse_pages(value.get("wit_features")), key=lambda page: page.get("language") != "en")
    for field in CAPTION_COLUMNS:
        for page in (*pages, value):
            caption = collapse_whitespace(page.get(field))
            if caption:
                return (pages[0] if page is value and pages else page), caption
    raise RejectError("no_caption", "the row has no caption in any language")


def _parse_pages(features: Any) -> list[Mapping[str, Any]]:
    """Return an object per page; Parquet holds them as an object of lists, or as a list of objects."""
    if isinstance(features, Mapping):
        lists = {field: values for field, values in features.items() if isinstance(values, list)}
        n_pages = max(map(len, lists.values()), default=0)
        return [{f: values[n] for f, values in lists.items() if n < len(values)} for n in range(n_pages)]
    return [page for page in features or () if isinstance(page, Mapping)]


FORMAT = Format(
    row_files=("*.tsv", "*.tsv.gz"),
    media_files=ARCHIVE_FILES,
    description="the *.tsv files and the images they name",
    read=read,
    read_keys=read_keys,
)
