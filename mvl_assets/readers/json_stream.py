r"""JSON files of any size, one element at a time: arrays, objects, JSON Lines (RFC 8259; jsonlines.org).

    [{"id": "a", "image": "a.jpg"},          {"id": "a", "image": "a.jpg"}
     {"id": "b", "image": "b.jpg"}]          {"id": "b", "image": "b.jpg"}

Why not an event parser such as ijson: it gives up the whole rest of a file at the first NaN or stray byte. Here the
standard decoder reads element after element from a sliding buffer, so a bad element costs one element; only a file
whose brackets do not match, or that ends early, loses its rest.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

CHUNK = 1 << 20
MAX_ELEMENT = 64 << 20
"""Characters (bytes in JSON Lines) one element may have."""

BROKEN_FILE = "broken_file"
"""Error class of a file that cannot be read from some point on, which says nothing about the rows behind that point."""

INCOMPLETE = "incomplete_file"
"""Error class of a row whose parts lie apart in a file that cannot be read to its end: some may lie behind it."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_SCALAR = re.compile(r"[^\s,\]}]+")
_SPACE = re.compile(r"[ \t\n\r]*+")


@dataclass(frozen=True, slots=True)
class Item:
    """One element: its place among its siblings from 0, and its key when the parent is an object."""

    position: int
    value: Any
    key: str | None = None


@dataclass(frozen=True, slots=True)
class BadItem:
    """An element that cannot be read: `bad_json`, `not_a_number`, `duplicate_key`, `bad_utf8`, `too_large`; in tables
    `bad_csv`, `bad_cell`. `broken_file` comes last."""

    position: int
    error: str
    message: str
    key: str | None = None


def elements(path: Path, under: Sequence[str] = ()) -> Iterator[Item | BadItem]:
    """The elements of the array, or the members of the object, that the file is.

    `under` names the keys that lead to it when it lies deeper; what lies beside it is read and dropped.
    """
    position = 0
    try:
        with path.open("rb") as stream:
            text = _Text(stream)
            for key in under:
                _enter(text, key)
            if text.peek() not in ("[", "{"):
                text.fail("neither a JSON array nor an object begins")
            for item in _children(text):
                position = item.position + 1
                yield item
            if not under and text.peek():
                text.fail("more text follows the end of the JSON value")
    except _Lost as lost:
        yield BadItem(position, BROKEN_FILE, str(lost))
    except OSError as error:
        yield BadItem(position, BROKEN_FILE, f"cannot be read: {error.strerror}")


def lines(path: Path) -> Iterator[Item | BadItem]:
    """The values of a JSON Lines file. Blank lines do not count."""
    position = 0
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_ELEMENT + 1):
                if not line.strip():
                    continue
                if len(line) > MAX_ELEMENT:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(MAX_ELEMENT)
                    yield BadItem(position, "too_large", f"a line of more than {MAX_ELEMENT} bytes")
                else:
                    yield _line(line, position)
                position += 1
    except OSError as error:
        yield BadItem(position, BROKEN_FILE, f"cannot be read: {error.strerror}")


def starts_with(path: Path) -> str:
    """The first character of the file that is not white space, "" when there is none or it cannot be read."""
    try:
        with path.open("rb") as stream:
            return _Text(stream).peek()
    except (_Lost, OSError):
        return ""


def _line(line: bytes, position: int) -> Item | BadItem:
    try:
        return Item(position, _decode(line.removeprefix(codecs.BOM_UTF8).decode("utf-8")))
    except UnicodeDecodeError as error:
        return BadItem(position, "bad_utf8", f"byte {error.start} of the line is not UTF-8")
    except (ValueError, RecursionError) as error:
        return BadItem(position, _kind(error), str(error))


class _Lost(Exception):
    """The place in the file is lost; nothing behind it can be read."""


class _NotANumber(ValueError):
    pass


class _DuplicateKey(ValueError):
    pass


class _BadValue(Exception):
    """One value is bad, and the text stands behind it."""

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        self.message = message
        super().__init__(message)


def _refuse_constant(name: str) -> NoReturn:
    raise _NotANumber(f"{name} is not JSON")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; one that gives a key twice says two things, and which is meant is not known (RFC 8259 §4)."""
    found = dict(members)
    if len(found) != len(members):
        twice, _ = Counter(key for key, _ in members).most_common(1)[0]
        raise _DuplicateKey(f"the key {twice[:100]!r} is given twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
_decode = _DECODER.decode


class _Text:
    """A sliding window over a UTF-8 file. Undecodable bytes become lone surrogates, found when their value is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._buffer = ""
        self._at = 0
        self._dropped = 0
        self._ended = False
        self._more()
        self._at = 1 if self._buffer.startswith("\ufeff") else 0

    def peek(self) -> str:
        """The next character that is not white space, "" at the end; the text then stands at it."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def step(self) -> None:
        self._at += 1

    def value(self) -> Any:
        """Reads one value. Raises `_BadValue` (the text stands behind it) or `_Lost`."""
        while True:
            start = self._at
            try:
                value, end = _DECODER.raw_decode(self._buffer, start)
            except (ValueError, RecursionError) as error:
                behind = self._behind_value()
                if behind is not None:
                    self._at = behind
                    raise _BadValue(_kind(error), _said(error, self._dropped)) from error
            else:
                if self._is_whole(start):
                    self._at = end
                    _check_utf8(self._buffer[start:end])
                    return value
            if len(self._buffer) - start > MAX_ELEMENT:
                self.fail(f"an element has more than {MAX_ELEMENT} characters, or its brackets do not match")
            if not self._more():
                self.fail("the file ends inside an element")

    def fail(self, message: str) -> NoReturn:
        raise _Lost(f"{message} (character {self._dropped + self._at})")

    def _is_whole(self, start: int) -> bool:
        """False for a number that may go on behind the end of the buffer."""
        if self._buffer[start] in '[{"' or self._ended:
            return True
        match = _SCALAR.match(self._buffer, start)
        return match is None or match.end() < len(self._buffer)

    def _behind_value(self) -> int | None:
        """Where the value that begins here ends, judged by brackets and quotes alone; None = not in the buffer yet."""
        if self._buffer[self._at] not in '[{"':
            match = _SCALAR.match(self._buffer, self._at)
            if match is None:
                self.fail(f"a value is missing before {self._buffer[self._at]!r}")
            return match.end() if match.end() < len(self._buffer) or self._ended else None
        depth = 0
        for match in _TOKEN.finditer(self._buffer, self._at):
            found = match.group()
            if found[0] == '"':
                if not match.group(1):
                    return None
            else:
                depth += 1 if found in "[{" else -1
            if depth == 0:
                return match.end()
        return None

    def _more(self) -> bool:
        """Reads on, at least doubling what is held, so that reading a long value stays linear."""
        if self._ended:
            return False
        data = self._stream.read(max(CHUNK, len(self._buffer) - self._at))
        self._ended = not data
        self._dropped += self._at
        self._buffer = self._buffer[self._at :] + self._decoder.decode(data, final=self._ended)
        self._at = 0
        return True


def _kind(error: Exception) -> str:
    if isinstance(error, _NotANumber):
        return "not_a_number"
    return "duplicate_key" if isinstance(error, _DuplicateKey) else "bad_json"


def _said(error: Exception, dropped: int) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (character {dropped + error.pos})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check_utf8(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _BadValue("bad_utf8", f"character {error.start} of the element is not UTF-8") from error


def _children(text: _Text) -> Iterator[Item | BadItem]:
    """The elements of the array or object that begins here; afterwards the text stands behind it."""
    closing = "]" if text.peek() == "[" else "}"
    text.step()
    position = 0
    while (following := text.peek()) != closing:
        if position:
            if following != ",":
                text.fail(f"expected , or {closing} but found {following or 'the end of the file'!r}")
            text.step()
        key = _key(text) if closing == "}" else None
        if not text.peek():
            text.fail("the file ends before an element")
        try:
            yield Item(position, text.value(), key)
        except _BadValue as bad:
            yield BadItem(position, bad.error, bad.message, key)
        position += 1
    text.step()


def _key(text: _Text) -> str:
    if text.peek() != '"':
        text.fail("expected a key")
    try:
        key = text.value()
    except _BadValue as bad:
        text.fail(f"a key cannot be read: {bad.message}")
    if text.peek() != ":":
        text.fail(f"expected : behind the key {key!r}")
    text.step()
    return str(key)


def _enter(text: _Text, wanted: str) -> None:
    """Moves to the value of `wanted` in the object that begins here, dropping the members before it."""
    if text.peek() != "{":
        text.fail(f"expected an object with the key {wanted!r}")
    text.step()
    first = True
    while (following := text.peek()) != "}":
        if not first:
            if following != ",":
                text.fail(f"expected , or }} but found {following or 'the end of the file'!r}")
            text.step()
        first = False
        key = _key(text)
        opening = text.peek()
        if key == wanted:
            return
        if opening in ("[", "{"):
            for _ in _children(text):
                pass
        elif opening:
            try:
                text.value()
            except _BadValue:
                continue
    text.fail(f"there is no key {wanted!r}")
