"""Rendering a table and the paragraphs around it as one image, for sources that publish tables as text.

`lay_out_page` decides everything and `draw_page` only draws, so a page can be rejected before a pixel is made. Equal
pages give equal bytes within one version of Pillow: its own fonts are used, laid out without the shaping library that
only some installations have. Its scalable font covers little more than ASCII; other Latin-1 characters are taken from
its bitmap font, the rest are transliterated, and a text that mostly cannot be written is rejected.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, zip_longest

import PIL
from PIL import Image, ImageDraw, ImageFont

from mvl_assets.common.rejects import RejectError
from mvl_assets.media.image import encode_image

DRAWING_VERSION = 1
"""Incremented when `draw_page` makes something else of the same page."""

PAGE_WIDTH = 1000
MAX_PAGE_HEIGHT = 4096
"""Pixels: the width of every page, and the height above which a page is rejected (the paper's longest side)."""
MAX_CHARACTERS = 60_000
MAX_CELLS = 5_000
"""Larger tables are rejected before they are measured; a page of the size above holds far fewer cells."""

_FONT_SIZE, _LINE_HEIGHT, _MARGIN, _CELL_PADDING = 16, 22, 24, 6
_MIN_COLUMN_WIDTH = 32
"""Pixels that a column keeps when a wide table is squeezed."""
_TEXT_LEVEL, _BORDER_LEVEL, _BACKGROUND_LEVEL = 20, 150, 255
_BITMAP_CHARACTER_WIDTH = 8
"""Width in pixels of a character of the bitmap font (6 x 11) scaled to the height of the other letters."""
_MAX_MISSING_GLYPH_FRACTION = 0.02
_TRANSLITERATIONS = {
    "€": "EUR",
    "–": "-",
    "—": "-",
    "−": "-",
    "‐": "-",
    "‑": "-",
    "•": "*",
    "●": "*",
    "≤": "<=",
    "≥": ">=",
}


class TableImageError(RejectError):
    """A page that cannot be drawn: `code` is `empty_table`, `table_too_large` or `no_glyphs`."""


@dataclass(frozen=True, slots=True)
class Page:
    """Layout of a page in pixels from the upper left corner: `texts` (x, y, text) and `boxes` (x0, y0, x1, y1)."""

    height: int
    texts: tuple[tuple[int, int, str], ...]
    boxes: tuple[tuple[int, int, int, int], ...]


def lay_out_page(
    table: Sequence[Sequence[str]], paragraphs_before: Sequence[str] = (), paragraphs_after: Sequence[str] = ()
) -> Page:
    """Return the layout of a ruled table between paragraphs.

    Args:
        table: Rows of cells; short rows are padded.
        paragraphs_before: Paragraphs above the table.
        paragraphs_after: Paragraphs below the table.

    Raises:
        TableImageError: The table is empty or too large, or its text cannot be written.
    """
    cells = [cell for row in table for cell in row]
    if not any(cell.strip() for cell in cells):
        raise TableImageError("empty_table", "no cell of the table holds any text")
    n_columns = max(len(row) for row in table)
    n_characters = sum(map(len, (*cells, *paragraphs_before, *paragraphs_after)))
    if n_characters > MAX_CHARACTERS or n_columns * len(table) > MAX_CELLS:
        raise TableImageError("table_too_large", f"{n_characters} characters in {len(table)} x {n_columns} cells")
    n_missing_glyphs = 0

    def transliterate(text: str) -> str:
        nonlocal n_missing_glyphs
        transliterated, n_missing = _transliterate(text)
        n_missing_glyphs += n_missing
        return transliterated

    lines_above, lines_below = (
        [transliterate(text) for text in paragraphs_before],
        [transliterate(text) for text in paragraphs_after],
    )
    rows = [[transliterate(cell) for cell in row] for row in zip(*zip_longest(*table, fillvalue=""), strict=True)]
    if n_missing_glyphs > _MAX_MISSING_GLYPH_FRACTION * n_characters:
        raise TableImageError(
            "no_glyphs", f"{n_missing_glyphs} of {n_characters} characters cannot be written with Pillow's fonts"
        )

    texts: list[tuple[int, int, str]] = []
    boxes: list[tuple[int, int, int, int]] = []
    y = _add_paragraphs(texts, lines_above, _MARGIN)
    widths = _compute_column_widths(rows)
    for row in rows:
        cell_lines = [_wrap_text(cell, width - 2 * _CELL_PADDING) for cell, width in zip(row, widths, strict=True)]
        height = max(len(lines) for lines in cell_lines) * _LINE_HEIGHT + _CELL_PADDING
        x = _MARGIN
        for lines, width in zip(cell_lines, widths, strict=True):
            boxes.append((x, y, x + width, y + height))
            texts += [
                (x + _CELL_PADDING, y + _CELL_PADDING // 2 + n * _LINE_HEIGHT, line) for n, line in enumerate(lines)
            ]
            x += width
        y += height
    y = _add_paragraphs(texts, lines_below, y + _LINE_HEIGHT)
    if y > MAX_PAGE_HEIGHT:
        raise TableImageError("table_too_large", f"the page would be {y} pixels high, more than {MAX_PAGE_HEIGHT}")
    return Page(y, tuple(texts), tuple(boxes))


def draw_page(page: Page) -> bytes:
    """Return the page as a PNG, dark on white, `PAGE_WIDTH` pixels wide."""
    image = Image.new("L", (PAGE_WIDTH, page.height), _BACKGROUND_LEVEL)
    pen = ImageDraw.Draw(image)
    for box in page.boxes:
        pen.rectangle(box, outline=_BORDER_LEVEL)
    for x, y, line in page.texts:
        for is_scalable, run in groupby(line, _has_scalable_glyph):
            text = "".join(run)
            if is_scalable:
                pen.text((x, y), text, fill=_TEXT_LEVEL, font=_load_font())
            else:
                pen.bitmap((x, y + 1), _render_bitmap_text(text), fill=_TEXT_LEVEL)
            x += _measure_text(text)
    return encode_image(image, "PNG")


def compute_page_key(page: Page) -> str:
    """Return a name for what `draw_page` makes of a page: it changes with the page and with how pages are drawn."""
    return hashlib.sha256(
        repr((DRAWING_VERSION, PIL.__version__, page)).encode("utf-8", "backslashreplace")
    ).hexdigest()


def _add_paragraphs(texts: list[tuple[int, int, str]], paragraphs: Sequence[str], y: int) -> int:
    """Add the paragraphs below `y` and return the y below them."""
    for paragraph in paragraphs:
        lines = _wrap_text(paragraph, PAGE_WIDTH - 2 * _MARGIN)
        texts += [(_MARGIN, y + n * _LINE_HEIGHT, line) for n, line in enumerate(lines)]
        y += len(lines) * _LINE_HEIGHT + _LINE_HEIGHT // 3
    return y


def _compute_column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return each column's width: that of its widest cell, the widest columns cut until the table fits."""
    natural_widths = [
        max(_measure_text(cell) for cell in column) + 2 * _CELL_PADDING for column in zip(*rows, strict=True)
    ]
    available_width = PAGE_WIDTH - 2 * _MARGIN
    remaining_width, undecided_widths = available_width, sorted(natural_widths)
    while undecided_widths and undecided_widths[0] <= remaining_width // len(undecided_widths):
        remaining_width -= undecided_widths.pop(0)
    max_width = remaining_width // len(undecided_widths) if undecided_widths else available_width
    if max_width < _MIN_COLUMN_WIDTH:
        raise TableImageError(
            "table_too_large", f"{len(natural_widths)} columns do not fit into {available_width} pixels"
        )
    return [min(width, max_width) for width in natural_widths]


def _wrap_text(text: str, max_width: int) -> list[str]:
    """Break the text at spaces into lines of at most `max_width` pixels; a longer word is broken anywhere."""
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}" if lines[-1] else word
        if _measure_text(candidate) <= max_width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and _measure_text(lines[-1] + character) > max_width:
                lines.append("")
            lines[-1] += character
    return lines


def _transliterate(text: str) -> tuple[str, int]:
    """Return the text in characters that can be drawn, and how many had to become a question mark."""
    replacements = [_transliterate_character(character) for character in unicodedata.normalize("NFC", text)]
    return "".join(part or "?" for part in replacements if part is not None), sum(part == "" for part in replacements)


@lru_cache(maxsize=4096)
def _transliterate_character(character: str) -> str | None:
    """Return characters that can be drawn for `character`: "" if there are none, None if it has no shape of its own."""
    unicode_category = unicodedata.category(character)
    if unicode_category in ("Cf", "Mn"):
        return None
    if character.isspace() or unicode_category == "Cc":
        return " "
    if unicode_category == "Cs":
        return ""
    if _has_scalable_glyph(character) or "\xa1" <= character <= "\xff":
        return character
    if character in _TRANSLITERATIONS:
        return _TRANSLITERATIONS[character]
    decomposed = unicodedata.normalize("NFKD", character)
    return "" if decomposed == character else "".join(_transliterate_character(part) or "" for part in decomposed)


def _measure_text(text: str) -> int:
    return sum(map(_measure_character, text))


@lru_cache(maxsize=1024)
def _measure_character(character: str) -> int:
    return round(_load_font().getlength(character)) if _has_scalable_glyph(character) else _BITMAP_CHARACTER_WIDTH


@lru_cache(maxsize=4096)
def _has_scalable_glyph(character: str) -> bool:
    """Return whether the scalable font has the character: a missing one is drawn like U+10FFFF, which no font has."""
    return character == " " or bytes(_load_font().getmask(character)) != bytes(_load_font().getmask("\U0010ffff"))


def _render_bitmap_text(text: str) -> Image.Image:
    """Return Latin-1 characters of the bitmap font as a mask, as high as a line of the scalable font."""
    font = ImageFont.load_default_imagefont()
    unscaled = Image.new("L", (6 * len(text), 11))
    ImageDraw.Draw(unscaled).text((0, 0), text, fill=255, font=font)
    return unscaled.resize((_BITMAP_CHARACTER_WIDTH * len(text), _FONT_SIZE), Image.Resampling.LANCZOS)


@lru_cache(maxsize=1)
def _load_font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=_FONT_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TableImageError("no_glyphs", "this Pillow was built without FreeType")
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)
