r"""WIT, pictures of Wikipedia with their captions: Google's tables, or Wikimedia's copy with the pictures inside.

    wit_v1.train.all-00000-of-00010.tsv.gz      language, page_url, image_url, page_title, section_title,
        hierarchical_section_title, caption_reference_description, caption_attribution_description,
        caption_alt_text_description, mime_type, ..., context_page_description, context_section_description
    data/train-00000-of-00330.parquet           image: {bytes, path}, image_url, caption_attribution_description,
        wit_features: {language: [...], page_title: [...], caption_reference_description: [...], ...}

Google's tables only link to the pictures, which must have been fetched into `pictures/` (`fetched` says in which
layouts). Wikimedia's copy is wikimedia/wit_base, one row a picture with what every language's page says of it; copies
that hold one page a row have the same fields at the top. Kaggle's form of the competition, with base64 pixels in 200
tables in another order than the captions, is not read: wit_base holds the same pictures joined.

One sample per row: what the picture shows, asked with the titles of article and section, answered by a caption. Taken
is the reference caption (under the picture), else the attribution (on its own page), else the alternative text; where a
row holds several languages, English before the first that has one. A row without any is `no_caption`. Specification:
DATA.md of google-research-datasets/wit; the card of wikimedia/wit_base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers import delimited, parquet_columns
from mvl_assets.readers.caption_turns import asked
from mvl_assets.readers.files import relative
from mvl_assets.readers.formats.llava_parquet import picture_in_row
from mvl_assets.readers.registry import RowKey
from mvl_assets.readers.rows import Row, RowError, built, rows_of
from mvl_assets.readers.sample import Broken, Picture, Sample
from mvl_assets.readers.url_images import Fetched, listings

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

CAPTIONS = ("caption_reference_description", "caption_attribution_description", "caption_alt_text_description")
"""From the text that says most surely what is seen to the one that says it least."""

TEXTS = ("language", "page_title", "section_title", *CAPTIONS)


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    make = partial(_sample, root, Fetched(root))
    for row in _rows(source, root, pictures=True):
        yield built(row, make)


def keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Tables are read through; of Parquet only the links are."""
    for row in _rows(source, root, pictures=False):
        yield RowKey(row.file, row.position, row.native_id)


def _rows(source: SourceSpec, root: Path, *, pictures: bool) -> Iterator[Row | Broken]:
    for path in listings(source.slug, root, "**/*.tsv", "**/*.tsv.gz", "**/*.parquet"):
        if path.suffix == ".parquet":
            needed = (("image_url",), ("image",), ("wit_features", CAPTIONS[0]))
            items = parquet_columns.rows(path, needed, TEXTS, None if pictures else ("image_url",))
        else:
            items = delimited.rows(path, "\t", ("image_url", "page_title", *CAPTIONS))
        yield from rows_of(relative(root, path), items, "image_url")


def _sample(root: Path, fetched: Fetched, row: Row) -> Sample:
    page, caption = _captioned(row.value)
    title, section = (_text(page.get(field)) for field in ("page_title", "section_title"))
    place = f', section "{section}"' if section else ""
    question = f'This picture is shown in the Wikipedia article "{title}"{place}. What does it show?'
    if not title:
        question = "What does this picture show?"
    turns = asked([(question, caption)], 1)
    return Sample(row.file, row.position, turns, row.native_id, (_picture(root, fetched, row),))


def _picture(root: Path, fetched: Fetched, row: Row) -> Picture:
    if "image" not in row.value:
        return fetched.picture(row.value.get("image_url"))
    return picture_in_row(root, row.value["image"], f"{row.file}#{row.position}")


def _captioned(value: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """What a page says of the picture: the page's fields and its caption. Raises `RowError("no_caption")`."""
    pages = sorted(_pages(value.get("wit_features")), key=lambda page: page.get("language") != "en")
    for field in CAPTIONS:
        for page in (*pages, value):
            caption = _text(page.get(field))
            if caption:
                return (pages[0] if page is value and pages else page), caption
    raise RowError("no_caption", "the row has no caption in any language")


def _pages(features: Any) -> list[Mapping[str, Any]]:
    """One object a page. Parquet holds them as an object of lists, or as a list of objects."""
    if isinstance(features, Mapping):
        lists = {field: found for field, found in features.items() if isinstance(found, list)}
        most = max(map(len, lists.values()), default=0)
        return [{f: found[n] for f, found in lists.items() if n < len(found)} for n in range(most)]
    return [page for page in features or () if isinstance(page, Mapping)]


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
