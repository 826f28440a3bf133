r"""Delimited text with a header line (RFC 4180): commas or tabs between the cells, plain or compressed with gzip.

    language\tpage_url\timage_url\n
    en\thttps://...\t"a cell with tab, line\nbreak and ""quotes"" inside"\n

Every line and cell has a bound on its length.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem

MAX_FIELD_CHARS = 16 << 20
"""Characters a line, or a cell that spans lines, may have."""


def iter_rows(
    path: Path, delimiter: str, required: Sequence[str] = (), *, quoted: bool = True
) -> Iterator[Item | RejectedItem]:
    """Yield the rows as objects of strings.

    A file that lacks a required column, is cut off, or opens a quote that it does not close, ends in `broken_file`.

    Args:
        path: File in UTF-8, plain or gzip.
        delimiter: Comma or tab.
        required: Columns that the header must have.
        quoted: Whether a cell may be in quotes and then hold anything (RFC 4180).
    """
    csv.field_size_limit(MAX_FIELD_CHARS)
    position = 0
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            raw = gzip.GzipFile(fileobj=file) if is_gzip else file
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            lines = _LineReader(text)
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
            header = next(reader, [])
            missing = [name for name in required if name not in header]
            if missing:
                header_text = ", ".join(header)[:300]
                yield RejectedItem(0, BROKEN_FILE, f"has the columns {header_text}, but not {', '.join(missing)}")
                return
            if len(set(header)) != len(header):
                duplicate_column = next(name for name in header if header.count(name) > 1)
                yield RejectedItem(0, BROKEN_FILE, f"has two columns called {duplicate_column[:100]!r}")
                return
            if not header:
                yield RejectedItem(0, BROKEN_FILE, "there is no header line")
                return
            while True:
                start_line = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    if reader.line_num > start_line:  # inside a cell: the lines that follow may be text of it
                        raise
                    yield RejectedItem(position, "bad_csv", f"line {start_line}: {error}")
                    position += 1
                    continue
                if cells is None:
                    return
                if lines.exhausted:
                    yield RejectedItem(position, BROKEN_FILE, f"a quote that opens in line {start_line} is not closed")
                    return
                if cells:
                    yield _parse_row(position, header, cells, reader.line_num)
                    position += 1
    except (OSError, EOFError, zlib.error, _LineTooLong, csv.Error) as error:
        yield RejectedItem(position, BROKEN_FILE, f"cannot be read any further: {error}")


class _LineTooLong(Exception):
    """A line longer than `MAX_FIELD_CHARS`."""


class _LineReader:
    """The lines of a text.

    `exhausted` says whether more was asked for than there are, which `csv` only does inside a quote.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.exhausted = False
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_FIELD_CHARS)
        if not line:
            self.exhausted = True
            raise StopIteration
        if len(line) >= MAX_FIELD_CHARS:
            raise _LineTooLong(f"a line of more than {MAX_FIELD_CHARS} characters")
        return line


def _parse_row(position: int, header: Sequence[str], cells: Sequence[str], line_number: int) -> Item | RejectedItem:
    if len(cells) != len(header):
        return RejectedItem(position, "bad_csv", f"{len(cells)} cells for {len(header)} columns (line {line_number})")
    if any("\0" in cell for cell in cells):
        return RejectedItem(position, "bad_csv", f"line {line_number} holds a zero byte")
    if any("\udc80" <= c <= "\udcff" for cell in cells if not cell.isascii() for c in cell):
        return RejectedItem(position, "bad_utf8", f"line {line_number} is not UTF-8")
    return Item(position, dict(zip(header, cells, strict=True)))
