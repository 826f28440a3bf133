"""A table and the paragraphs around it as one picture, for sources that publish tables as text.

Belongs here: laying text out and drawing it. Not here: where tables come from (`readers/table_text`).

`lay_out` decides everything and `draw` only draws, so a page can be refused before a pixel is made. Equal pages give
equal bytes within one version of Pillow: its own fonts are used, laid out without the shaping library that only some
installations have. Its scalable font knows little more than ASCII; Latin-1 characters beyond that are taken from its
bitmap font, others are spelled with the letters there are, and a text that mostly cannot be written is refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, zip_longest

from PIL import Image, ImageDraw, ImageFont

from mvl_assets.media.image import encode

WIDE = 1000
HIGHEST = 4096
"""Pixels: the width of every page, and the height above which a page is refused (the paper's longest side)."""
MAX_CHARACTERS = 60_000
MAX_CELLS = 5_000
"""More is refused unmeasured; a page of the size above holds far fewer."""

_SIZE, _LINE, _MARGIN, _PAD = 16, 22, 24, 6
_NARROWEST = 32
"""Pixels a column keeps when a wide table is squeezed."""
_INK, _RULE, _PAPER = 20, 150, 255
_BITMAP_WIDTH = 8
"""Pixels a character of the bitmap font (6 x 11) takes once it is as high as the other letters."""
_LOST_SHARE = 0.02
_SPELLED = {"€": "EUR", "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "•": "*", "●": "*", "≤": "<=", "≥": ">="}


class TablePictureError(Exception):
    """Why a page cannot be drawn: `error` is `empty_table`, `table_too_large` or `no_glyphs`."""

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        self.message = message
        super().__init__(f"{error}: {message}")


@dataclass(frozen=True, slots=True)
class Page:
    """What stands where, in pixels from the upper left corner: `words` (x, y, text) and `boxes` (x0, y0, x1, y1)."""

    height: int
    words: tuple[tuple[int, int, str], ...]
    boxes: tuple[tuple[int, int, int, int], ...]


def lay_out(table: Sequence[Sequence[str]], before: Sequence[str] = (), after: Sequence[str] = ()) -> Page:
    """A page with the paragraphs `before`, the ruled table (rows of cells; short rows are filled up) and those `after`.

    Raises `TablePictureError`.
    """
    cells = [cell for row in table for cell in row]
    if not any(cell.strip() for cell in cells):
        raise TablePictureError("empty_table", "no cell of the table holds any text")
    columns = max(len(row) for row in table)
    characters = sum(map(len, (*cells, *before, *after)))
    if characters > MAX_CHARACTERS or columns * len(table) > MAX_CELLS:
        raise TablePictureError("table_too_large", f"{characters} characters in {len(table)} x {columns} cells")
    lost = 0

    def written(text: str) -> str:
        nonlocal lost
        legible, missing = _legible(text)
        lost += missing
        return legible

    above, below = [written(text) for text in before], [written(text) for text in after]
    rows = [[written(cell) for cell in row] for row in zip(*zip_longest(*table, fillvalue=""), strict=True)]
    if lost > _LOST_SHARE * characters:
        raise TablePictureError("no_glyphs", f"{lost} of {characters} characters cannot be written with Pillow's fonts")

    words: list[tuple[int, int, str]] = []
    boxes: list[tuple[int, int, int, int]] = []
    y = _paragraphs(words, above, _MARGIN)
    widths = _column_widths(rows)
    for row in rows:
        broken = [_lines(cell, width - 2 * _PAD) for cell, width in zip(row, widths, strict=True)]
        height = max(len(lines) for lines in broken) * _LINE + _PAD
        x = _MARGIN
        for lines, width in zip(broken, widths, strict=True):
            boxes.append((x, y, x + width, y + height))
            words += [(x + _PAD, y + _PAD // 2 + n * _LINE, line) for n, line in enumerate(lines)]
            x += width
        y += height
    y = _paragraphs(words, below, y + _LINE)
    if y > HIGHEST:
        raise TablePictureError("table_too_large", f"the page would be {y} pixels high, more than {HIGHEST}")
    return Page(y, tuple(words), tuple(boxes))


def draw(page: Page) -> bytes:
    """The page as a PNG, dark on white, `WIDE` pixels wide."""
    picture = Image.new("L", (WIDE, page.height), _PAPER)
    pen = ImageDraw.Draw(picture)
    for box in page.boxes:
        pen.rectangle(box, outline=_RULE)
    for x, y, line in page.words:
        for scalable, run in groupby(line, _is_scalable):
            text = "".join(run)
            if scalable:
                pen.text((x, y), text, fill=_INK, font=_font())
            else:
                pen.bitmap((x, y + 1), _bitmap(text), fill=_INK)
            x += _width(text)
    return encode(picture, "PNG")


def _paragraphs(words: list[tuple[int, int, str]], paragraphs: Sequence[str], y: int) -> int:
    """Adds the paragraphs below `y`; returns where the next thing begins."""
    for paragraph in paragraphs:
        lines = _lines(paragraph, WIDE - 2 * _MARGIN)
        words += [(_MARGIN, y + n * _LINE, line) for n, line in enumerate(lines)]
        y += len(lines) * _LINE + _LINE // 3
    return y


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Every column as wide as its widest cell; the widest columns give way until the table fits the page."""
    wanted = [max(_width(cell) for cell in column) + 2 * _PAD for column in zip(*rows, strict=True)]
    room = WIDE - 2 * _MARGIN
    left, undecided = room, sorted(wanted)
    while undecided and undecided[0] <= left // len(undecided):
        left -= undecided.pop(0)
    widest = left // len(undecided) if undecided else room
    if widest < _NARROWEST:
        raise TablePictureError("table_too_large", f"{len(wanted)} columns do not fit into {room} pixels")
    return [min(width, widest) for width in wanted]


def _lines(text: str, width: int) -> list[str]:
    """The text broken at spaces into lines of at most `width` pixels; a longer word is broken anywhere."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and _width(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _legible(text: str) -> tuple[str, int]:
    """The text in characters that can be drawn, and how many had to become a question mark."""
    parts = [_spelled(character) for character in unicodedata.normalize("NFC", text)]
    return "".join(part or "?" for part in parts if part is not None), sum(part == "" for part in parts)


@lru_cache(maxsize=4096)
def _spelled(character: str) -> str | None:
    """`character` in characters that can be drawn: "" when there are none, None when it has no shape of its own."""
    kind = unicodedata.category(character)
    if kind in ("Cf", "Mn"):
        return None
    if character.isspace() or kind == "Cc":
        return " "
    if kind == "Cs":
        return ""
    if _is_scalable(character) or "\xa1" <= character <= "\xff":
        return character
    if character in _SPELLED:
        return _SPELLED[character]
    simpler = unicodedata.normalize("NFKD", character)
    return "" if simpler == character else "".join(_spelled(part) or "" for part in simpler)


def _width(text: str) -> int:
    return sum(map(_advance, text))


@lru_cache(maxsize=1024)
def _advance(character: str) -> int:
    return round(_font().getlength(character)) if _is_scalable(character) else _BITMAP_WIDTH


@lru_cache(maxsize=4096)
def _is_scalable(character: str) -> bool:
    """Whether the scalable font has the character: what it lacks is drawn like U+10FFFF, which nothing has."""
    return character == " " or bytes(_font().getmask(character)) != bytes(_font().getmask("\U0010ffff"))


def _bitmap(text: str) -> Image.Image:
    """Latin-1 characters of the bitmap font as a mask, as high as a line of the scalable font."""
    font = ImageFont.load_default_imagefont()
    small = Image.new("L", (6 * len(text), 11))
    ImageDraw.Draw(small).text((0, 0), text, fill=255, font=font)
    return small.resize((_BITMAP_WIDTH * len(text), _SIZE), Image.Resampling.LANCZOS)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TablePictureError("no_glyphs", "this Pillow was built without FreeType")
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)
