r"""Tables as text with a header line (RFC 4180), comma or tab between the cells, plain or packed with gzip.

    language\tpage_url\timage_url\n
    en\thttps://...\t"a cell with tab, line\nbreak and ""quotes"" inside"\n

Belongs here: bytes to rows, with a bound on every line and cell. Not here: what the columns mean.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mvl_assets.readers.json_stream import BROKEN_FILE, BadItem, Item

FIELD_LIMIT = 16 << 20
"""Characters a line, or a cell that spans lines, may have."""


def rows(path: Path, delimiter: str, needed: Sequence[str] = (), *, quoted: bool = True) -> Iterator[Item | BadItem]:
    """The rows as objects of strings; with `quoted` a cell may stand in quotes and hold anything.

    A file that lacks a column of `needed`, is cut off, or opens a quote that it does not close, ends in `broken_file`.
    """
    csv.field_size_limit(FIELD_LIMIT)
    position = 0
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            raw = gzip.GzipFile(fileobj=file) if packed else file
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            lines = _Lines(text)
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
            header = next(reader, [])
            missing = [name for name in needed if name not in header]
            if missing:
                found = ", ".join(header)[:300]
                yield BadItem(0, BROKEN_FILE, f"has the columns {found}, but not {', '.join(missing)}")
                return
            if len(set(header)) != len(header):
                twice = next(name for name in header if header.count(name) > 1)
                yield BadItem(0, BROKEN_FILE, f"has two columns called {twice[:100]!r}")
                return
            if not header:
                yield BadItem(0, BROKEN_FILE, "there is no header line")
                return
            while True:
                first = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    if reader.line_num > first:  # inside a cell: the lines that follow may be text of it
                        raise
                    yield BadItem(position, "bad_csv", f"line {first}: {error}")
                    position += 1
                    continue
                if cells is None:
                    return
                if lines.are_over:
                    yield BadItem(position, BROKEN_FILE, f"a quote that opens in line {first} is not closed")
                    return
                if cells:
                    yield _row(position, header, cells, reader.line_num)
                    position += 1
    except (OSError, EOFError, zlib.error, _EndlessLine, csv.Error) as error:
        yield BadItem(position, BROKEN_FILE, f"cannot be read on: {error}")


class _EndlessLine(Exception):
    """A line longer than `FIELD_LIMIT`."""


class _Lines:
    """The lines of a text. `are_over` once more was asked for than there are, which `csv` only does inside a quote."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.are_over = False
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(FIELD_LIMIT)
        if not line:
            self.are_over = True
            raise StopIteration
        if len(line) >= FIELD_LIMIT:
            raise _EndlessLine(f"a line of more than {FIELD_LIMIT} characters")
        return line


def _row(position: int, header: Sequence[str], cells: Sequence[str], line: int) -> Item | BadItem:
    if len(cells) != len(header):
        return BadItem(position, "bad_csv", f"{len(cells)} cells for {len(header)} columns (line {line})")
    if any("\0" in cell for cell in cells):
        return BadItem(position, "bad_csv", f"line {line} holds a zero byte")
    if any("\udc80" <= c <= "\udcff" for cell in cells if not cell.isascii() for c in cell):
        return BadItem(position, "bad_utf8", f"line {line} is not UTF-8")
    return Item(position, dict(zip(header, cells, strict=True)))
