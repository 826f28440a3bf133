"""Files that hold one record each: a JSON object, an XML document, a text, or nothing but the place of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem, parse_json
from mvl_assets.readers.parsers.xml_record import parse_xml

MAX_FILE_BYTES = 64 << 20
"""Bytes one file may have."""

TEXT_FIELD = "text"
"""Field of a text file's content."""


def read_json(path: Path, key_path: Sequence[str] = ()) -> Iterator[Item | RejectedItem]:
    """Yield the value of a JSON file, or what its keys lead to. The file is one row, so no other is lost with it."""
    try:
        value = parse_json(_read_bytes(path))
        for key in key_path:
            if not isinstance(value, dict) or key not in value:
                raise RejectError("bad_json", f"there is no key {key!r}")
            value = value[key]
    except RejectError as error:
        yield RejectedItem(0, error.code, error.message)
    else:
        yield Item(0, value)


def read_xml(path: Path) -> Iterator[Item | RejectedItem]:
    """Yield the content of an XML file's outermost element."""
    try:
        yield Item(0, parse_xml(_read_bytes(path)))
    except RejectError as error:
        yield RejectedItem(0, error.code, error.message)


def read_text(path: Path) -> Iterator[Item | RejectedItem]:
    """Yield an object with the file's text in the field `text`, without white space around it."""
    try:
        yield Item(0, {TEXT_FIELD: _read_bytes(path).decode("utf-8-sig").strip()})
    except RejectError as error:
        yield RejectedItem(0, error.code, error.message)
    except UnicodeDecodeError as error:
        yield RejectedItem(0, "bad_utf8", f"byte {error.start} of the file is not UTF-8")


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise RejectError("too_large", f"the file has {size} bytes, more than {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise RejectError("unreadable_file", f"cannot be read: {error.strerror}") from error
