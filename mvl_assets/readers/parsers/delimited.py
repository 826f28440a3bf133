r"""Delimited text (RFC 4180): commas, tabs or other characters between the cells, plain or compressed with gzip.

    language\tpage_url\timage_url\n
    en\thttps://...\t"a cell with tab, line\nbreak and ""quotes"" inside"\n

Every line and cell has a bound on its length.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem

MAX_FIELD_CHARS = 16 << 20
"""Characters a line, or a cell that spans lines, may have."""

UNQUOTED_HINT = "; `quoted: false` in the field map takes a quote as a character like any other"
QUOTED_HINT = "; `quoted: true` in the field map reads cells in quotes"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def iter_rows(
    path: Path,
    delimiter: str,
    required: Sequence[str] = (),
    *,
    quoted: bool = True,
    columns: Sequence[str] = (),
    encoding: str | None = None,
) -> Iterator[Item | RejectedItem]:
    """Yield the rows as objects of strings.

    A file that lacks a required column, is cut off, or opens a quote that it does not close, ends in `broken_file`. A
    row with a quote that closes in the middle of a cell is rejected; the lines that it swallowed are read as rows.

    Args:
        path: File, plain or gzip.
        delimiter: Character between two cells.
        required: Columns that the header must have.
        quoted: Whether a cell may be in quotes and then hold anything (RFC 4180).
        columns: Names of the cells in a file that has no header line.
        encoding: Encoding of the text; UTF-8 by default, UTF-16 where the file begins with its byte order mark.
    """
    csv.field_size_limit(MAX_FIELD_CHARS)
    position = 0
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            raw = io.BufferedReader(gzip.GzipFile(fileobj=file)) if is_gzip else file
            if encoding is None:
                encoding = "utf-16" if raw.peek(2)[:2] in _UTF16_MARKS else "utf-8-sig"
            text = io.TextIOWrapper(raw, encoding=encoding, errors="surrogateescape", newline="")
            lines = _LineReader(text)
            reader = csv.reader(
                lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
            )
            header = list(columns) or next(reader, [])
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
                lines.begin_record()
                start_line = lines.line_number + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    if lines.exhausted:
                        problem = f"a quote that opens in line {start_line} is not closed"
                        yield RejectedItem(position, BROKEN_FILE, problem)
                        return
                    if "field limit" in str(error):
                        raise
                    yield RejectedItem(position, "bad_csv", f"line {start_line}: {error}{UNQUOTED_HINT}")
                    lines.requeue_swallowed_lines()
                    position += 1
                    continue
                if cells is None:
                    return
                if cells:
                    yield _parse_row(position, header, cells, lines.line_number, quoted, encoding)
                    position += 1
    except (OSError, EOFError, UnicodeError, zlib.error, _LineTooLong, csv.Error) as error:
        yield RejectedItem(position, BROKEN_FILE, f"cannot be read any further: {error}")


class _LineTooLong(Exception):
    """A line longer than `MAX_FIELD_CHARS`."""


class _LineReader:
    """The lines of a text.

    `exhausted` says whether more was asked for than there are, which `csv` only does inside a quote and at the end.
    `line_number` is that of the last line, from 1.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.exhausted = False
        self.line_number = 0
        self._text = text
        self._record: list[str] = []
        self._returned: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else self._text.readline(MAX_FIELD_CHARS)
        if not line:
            self.exhausted = True
            raise StopIteration
        if len(line) >= MAX_FIELD_CHARS:
            raise _LineTooLong(f"a line of more than {MAX_FIELD_CHARS} characters")
        self.line_number += 1
        self._record.append(line)
        return line

    def begin_record(self) -> None:
        """Note that the next line begins a record."""
        self._record = []

    def requeue_swallowed_lines(self) -> None:
        """Give the lines of the record again but for its first: they may be records that a stray quote swallowed."""
        self._returned.extendleft(reversed(self._record[1:]))
        self.line_number -= len(self._record) - 1


def _parse_row(
    position: int, header: Sequence[str], cells: Sequence[str], line_number: int, quoted: bool, encoding: str
) -> Item | RejectedItem:
    if len(cells) != len(header):
        hint = "" if quoted or not any(cell.startswith('"') for cell in cells) else QUOTED_HINT
        problem = f"{len(cells)} cells for {len(header)} columns (line {line_number}){hint}"
        return RejectedItem(position, "bad_csv", problem)
    if any("\0" in cell for cell in cells):
        return RejectedItem(position, "bad_csv", f"line {line_number} holds a zero byte")
    if any("\udc80" <= c <= "\udcff" for cell in cells if not cell.isascii() for c in cell):
        name = encoding.removesuffix("-sig").upper()
        return RejectedItem(
            position, "bad_utf8", f"line {line_number} is not {name}; the map's `encoding` says another"
        )
    return Item(position, dict(zip(header, cells, strict=True)))
