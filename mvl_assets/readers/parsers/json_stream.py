r"""JSON files of any size, one element at a time: arrays, objects, JSON Lines (RFC 8259; jsonlines.org).

    [{"id": "a", "image": "a.jpg"},          {"id": "a", "image": "a.jpg"}
     {"id": "b", "image": "b.jpg"}]          {"id": "b", "image": "b.jpg"}

Why not an event parser such as ijson: it gives up the whole rest of a file at the first NaN or stray byte. Here the
standard decoder reads element after element from a sliding buffer, so a bad or overlong element costs one element; only
a file whose brackets do not match, or that ends early, loses its rest. NaN is null: a row is lost only where it is a
value that the row needs.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from mvl_assets.common.rejects import RejectError

CHUNK_BYTES = 1 << 20
MAX_ELEMENT_CHARS = 64 << 20
"""Characters (bytes in JSON Lines) one element may have."""

BROKEN_FILE = "broken_file"
"""Error class of a file that cannot be read from some point on, which says nothing about the rows after that point."""

INCOMPLETE_FILE = "incomplete_file"
"""Error class of a row whose parts are spread over a file that cannot be read to its end: some may be missing."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_TEXT_PART = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_BETWEEN_TOKENS = re.compile(r'[^"{}\[\]]*+')
_SCALAR = re.compile(r"[^\s,\]}]+")
_SPACE = re.compile(r"[ \t\n\r]*+")
_KEY_END = re.compile(rb'"[ \t\n\r]*+:')


class Item(msgspec.Struct, frozen=True, gc=False):
    """One element: its position among its siblings from 0, and its key when the parent is an object."""

    position: int
    value: Any
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedItem:
    """An element that cannot be read.

    `error` is `bad_json`, `duplicate_key`, `bad_utf8` or `too_large`; in tables `bad_csv` or
    `bad_cell`. `broken_file` comes last.
    """

    position: int
    error: str
    message: str
    key: str | None = None


def iter_elements(path: Path, key_path: Sequence[str] = ()) -> Iterator[Item | RejectedItem]:
    """Yield the elements of the array, or the members of the object, that the file is.

    Args:
        path: JSON file of any size.
        key_path: Keys that lead to the array or object when it is deeper; everything around it is read and dropped.
    """
    position = 0
    try:
        with path.open("rb") as stream:
            scanner = _JsonScanner(stream)
            for key in key_path:
                _descend(scanner, key)
            if scanner.peek() not in ("[", "{"):
                scanner.fail("there is neither a JSON array nor an object")
            for item in _iter_children(scanner):
                position = item.position + 1
                yield item
            if not key_path and scanner.peek():
                scanner.fail("more text follows the end of the JSON value")
    except _Desynchronized as lost:
        yield RejectedItem(position, BROKEN_FILE, str(lost))
    except OSError as error:
        yield RejectedItem(position, BROKEN_FILE, f"cannot be read: {error.strerror}")


def iter_lines(path: Path) -> Iterator[Item | RejectedItem]:
    """Yield the values of a JSON Lines file. Blank lines do not count."""
    for position, line in iter_raw_lines(path):
        yield parse_line(line, position) if isinstance(line, bytes) else line


def iter_raw_lines(path: Path) -> Iterator[tuple[int, bytes | RejectedItem]]:
    """Yield the lines of a JSON Lines file with their positions, as they are, or why one cannot be read."""
    position = 0
    try:
        with path.open("rb", buffering=CHUNK_BYTES) as stream:
            while line := stream.readline(MAX_ELEMENT_CHARS + 1):
                if line.isspace():
                    continue
                if len(line) > MAX_ELEMENT_CHARS:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(MAX_ELEMENT_CHARS)
                    message = f"a line of more than {MAX_ELEMENT_CHARS} bytes"
                    yield position, RejectedItem(position, "too_large", message)
                else:
                    yield position, line
                position += 1
    except OSError as error:
        yield position, RejectedItem(position, BROKEN_FILE, f"cannot be read: {error.strerror}")


def peek_first_char(path: Path) -> str:
    """Return the first character of the file that is not white space, "" when there is none or it cannot be read."""
    try:
        with path.open("rb") as stream:
            return _JsonScanner(stream).peek()
    except (_Desynchronized, OSError):
        return ""


def parse_json(data: bytes) -> Any:
    """Return the value of a whole JSON text.

    Raises:
        RejectError: `bad_utf8`, `bad_json`, `duplicate_key`.
    """
    try:
        value = _decode_fast(data)
        # Where it has more, a key is given twice, or a text looks like one: the standard decoder finds out.
        if has_keys(data, _count_keys(value)):
            return value
    except (ValueError, RecursionError, msgspec.DecodeError):
        pass  # the standard decoder accepts more, and says better what is wrong
    try:
        return _decode(data.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RejectError("bad_utf8", f"byte {error.start} is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RejectError(_classify_error(error), str(error)) from error


def parse_line(line: bytes, position: int) -> Item | RejectedItem:
    """Return the value of a line, or why there is none."""
    try:
        return Item(position, parse_json(line))
    except RejectError as error:
        return RejectedItem(position, error.code, error.message)


def has_keys(data: bytes, n_keys: int) -> bool:
    """Return whether a JSON text has so many keys. May be False where it has: a quote and a colon may be in a text."""
    return data.count(b":") == n_keys or len(_KEY_END.findall(data)) == n_keys


def _count_keys(value: Any) -> int:
    """Count the keys of an object and of all objects inside it."""
    n_keys = 0
    children: Iterable[Any] = value if type(value) is list else ()
    if type(value) is dict:
        n_keys, children = len(value), value.values()
    for child in children:
        if type(child) is dict or type(child) is list:
            n_keys += _count_keys(child)
    return n_keys


class _Desynchronized(Exception):
    """The position in the file is lost; nothing after it can be read."""


class _DuplicateKey(ValueError):
    pass


def _drop_constant(name: str) -> None:
    """Take NaN and Infinity, which are not JSON and which Python and pandas write for no value, as null."""


def _build_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; one that gives a key twice says two things, and which is meant is unknown (RFC 8259 §4)."""
    result = dict(members)
    if len(result) != len(members):
        duplicate_key, _ = Counter(key for key, _ in members).most_common(1)[0]
        raise _DuplicateKey(f"the key {duplicate_key[:100]!r} is given twice")
    return result


_DECODER = json.JSONDecoder(parse_constant=_drop_constant, object_pairs_hook=_build_object)
_decode = _DECODER.decode
_decode_fast = msgspec.json.Decoder().decode


class _JsonScanner:
    """A sliding window over a UTF-8 file. Undecodable bytes become lone surrogates, found when their value is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._buffer = ""
        self._position = 0
        self._n_dropped_chars = 0
        self._at_eof = False
        self._read_more()
        self._position = 1 if self._buffer.startswith("\ufeff") else 0

    def peek(self) -> str:
        """Return the next character that is not white space, "" at the end; the scanner is then at it."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._read_more():
                return ""

    def advance(self) -> None:
        self._position += 1

    def read_value(self) -> Any:
        """Read one value. Raises `RejectError` (the scanner is then after the value) or `_Desynchronized`."""
        while True:
            start = self._position
            try:
                value, end = _DECODER.raw_decode(self._buffer, start)
            except (ValueError, RecursionError) as error:
                value_end = self._find_end_of_value()
                if value_end is not None:
                    self._position = value_end
                    raise RejectError(_classify_error(error), _format_error(error, self._n_dropped_chars)) from error
            else:
                if self._is_complete(start):
                    self._position = end
                    _check_utf8(self._buffer[start:end])
                    return value
            if len(self._buffer) - start > MAX_ELEMENT_CHARS:
                message = f"an element has more than {MAX_ELEMENT_CHARS} characters, or its brackets do not match"
                if self._buffer[start] not in '[{"':
                    self.fail(message)
                message = f"{message} (character {self._n_dropped_chars + start})"
                self._skip_value()
                raise RejectError("too_large", message)
            if not self._read_more():
                self.fail("the file ends inside an element")

    def fail(self, message: str) -> NoReturn:
        raise _Desynchronized(f"{message} (character {self._n_dropped_chars + self._position})")

    def _is_complete(self, start: int) -> bool:
        """Return False for a number that may go on after the end of the buffer."""
        if self._buffer[start] in '[{"' or self._at_eof:
            return True
        match = _SCALAR.match(self._buffer, start)
        return match is None or match.end() < len(self._buffer)

    def _find_end_of_value(self) -> int | None:
        """Find where the value ends, judged by brackets and quotes alone; None when that is not in the buffer yet."""
        if self._buffer[self._position] not in '[{"':
            match = _SCALAR.match(self._buffer, self._position)
            if match is None:
                self.fail(f"a value is missing before {self._buffer[self._position]!r}")
            return match.end() if match.end() < len(self._buffer) or self._at_eof else None
        depth = 0
        for match in _TOKEN.finditer(self._buffer, self._position):
            token = match.group()
            if token[0] == '"':
                if not match.group(1):
                    return None
            else:
                depth += 1 if token in "[{" else -1  # noqa: S105
            if depth == 0:
                return match.end()
        return None

    def _skip_value(self) -> None:
        """Move past an array, object or text without holding it; its end is found by brackets and quotes alone."""
        depth = 0
        in_text = False
        while True:
            match = (_TEXT_PART if in_text else _BETWEEN_TOKENS).match(self._buffer, self._position)
            assert match is not None
            self._position = match.end()
            char = self._buffer[self._position : self._position + 1]
            if not char or char == "\\":  # an escape whose second half is not in the buffer
                if not self._read_more():
                    self.fail("the file ends inside an element")
                continue
            self._position += 1
            if char == '"':
                in_text = not in_text
            else:
                depth += 1 if char in "[{" else -1
            if not depth and not in_text:
                return

    def _read_more(self) -> bool:
        """Read more, at least doubling the buffer, so that reading a long value stays linear."""
        if self._at_eof:
            return False
        data = self._stream.read(max(CHUNK_BYTES, len(self._buffer) - self._position))
        self._at_eof = not data
        self._n_dropped_chars += self._position
        self._buffer = self._buffer[self._position :] + self._decoder.decode(data, final=self._at_eof)
        self._position = 0
        return True


def _classify_error(error: Exception) -> str:
    return "duplicate_key" if isinstance(error, _DuplicateKey) else "bad_json"


def _format_error(error: Exception, n_dropped_chars: int) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (character {n_dropped_chars + error.pos})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check_utf8(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RejectError("bad_utf8", f"character {error.start} of the element is not UTF-8") from error


def _iter_children(scanner: _JsonScanner) -> Iterator[Item | RejectedItem]:
    """Yield the elements of the array or object that starts here; the scanner is then after it."""
    closing = "]" if scanner.peek() == "[" else "}"
    scanner.advance()
    position = 0
    while (next_char := scanner.peek()) != closing:
        if position:
            if next_char != ",":
                scanner.fail(f"expected , or {closing} but found {next_char or 'the end of the file'!r}")
            scanner.advance()
        key = _read_key(scanner) if closing == "}" else None
        if not scanner.peek():
            scanner.fail("the file ends before an element")
        try:
            yield Item(position, scanner.read_value(), key)
        except RejectError as bad:
            yield RejectedItem(position, bad.code, bad.message, key)
        position += 1
    scanner.advance()


def _read_key(scanner: _JsonScanner) -> str:
    if scanner.peek() != '"':
        scanner.fail("expected a key")
    try:
        key = scanner.read_value()
    except RejectError as bad:
        scanner.fail(f"a key cannot be read: {bad.message}")
    if scanner.peek() != ":":
        scanner.fail(f"expected : after the key {key!r}")
    scanner.advance()
    return str(key)


def _descend(scanner: _JsonScanner, target_key: str) -> None:
    """Move to the value of `target_key` in the object that starts here, dropping the members before it."""
    if scanner.peek() != "{":
        scanner.fail(f"expected an object with the key {target_key!r}")
    scanner.advance()
    is_first = True
    while (next_char := scanner.peek()) != "}":
        if not is_first:
            if next_char != ",":
                scanner.fail(f"expected , or }} but found {next_char or 'the end of the file'!r}")
            scanner.advance()
        is_first = False
        key = _read_key(scanner)
        opening = scanner.peek()
        if key == target_key:
            return
        if opening in ("[", "{"):
            for _ in _iter_children(scanner):
                pass
        elif opening:
            try:
                scanner.read_value()
            except RejectError:
                continue
    scanner.fail(f"there is no key {target_key!r}")
