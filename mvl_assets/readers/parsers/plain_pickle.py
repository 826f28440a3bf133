r"""Pickles that hold nothing but plain data, read by an unpickler whose opcodes cannot call anything.

    (lp0                a list,
    (dp1                in it an object,
    S'ref_id'           with the key 'ref_id'
    I17                 and the value 17
    sa.                 (protocol 0, as Python 2 wrote it)

`pickle.load` runs what a pickle names, and lets a few bytes claim gigabytes (a memo slot is an array index in C). The
standard library's unpickler in Python keeps the memo in a dictionary and looks every opcode up in a table; here the
table has only the opcodes that build lists, objects, tuples, text, numbers, booleans and None. All others end the
reading, and the error names what the pickle asked for.

What a file can cost is bounded: its bytes, its opcodes (each makes at most one value), and whole numbers of 64 bits.
Values may be nested as deeply as the opcodes allow and may share parts or contain themselves, so do not walk them
recursively. Specification of the opcodes: CPython, Lib/pickletools.py.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 128 << 20
MAX_OPCODES = 12_000_000
"""About twice what the largest of the RefCOCO family needs (142,210 expressions, some 45 opcodes each). Each makes at
most one value, so the costliest possible file takes about 1.5 GB."""

_DAMAGE = (pickle.UnpicklingError, struct.error, ValueError, LookupError, TypeError, AttributeError, OverflowError)


class UnsafePickle(Exception):
    """A file that is not read: not a pickle, cut off, too large, or asking for more than plain data."""


def load(path: Path) -> Any:
    """Return the value in the file.

    Text of Python 2 that is not UTF-8 is taken as Latin-1. Keys of objects are text or whole numbers.

    Raises:
        UnsafePickle: It is not a pickle of plain data within the bounds, or the file cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size > MAX_BYTES:
                raise UnsafePickle(f"the file has {size} bytes, more than {MAX_BYTES}")
            if size == 0:
                raise UnsafePickle("the file is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _load(data)
    except OSError as error:
        raise UnsafePickle(f"cannot be read: {error.strerror}") from error


def _load(data: mmap.mmap) -> Any:
    # A file object would allocate as many bytes as an argument claims; a memory map has no more than the file.
    try:
        return _PlainUnpickler(data).load()
    except UnsafePickle as error:
        raise UnsafePickle(f"{error} (before byte {data.tell()})") from None
    except EOFError:
        raise UnsafePickle("not a whole pickle: the file ends before the pickle does") from None
    except _DAMAGE as error:
        raise UnsafePickle(f"not a whole pickle: {str(error)[:120]} (before byte {data.tell()})") from error


_StandardUnpickler: Any = pickle._Unpickler  # typeshed lacks its attributes and handlers


class _PlainUnpickler(_StandardUnpickler):  # type: ignore[misc]
    def __init__(self, data: mmap.mmap) -> None:
        super().__init__(data)
        self.dispatch = _OpcodeTable(_PLAIN_OPCODES)

    def find_class(self, module: str, name: str) -> NoReturn:
        global_name = ".".join(f"{module} {name}".split())
        raise UnsafePickle(f"the pickle asks for {global_name[:120]!a}, and only plain data is read")

    def _decode_string(self, value: bytes) -> str:
        """Decode text of Python 2."""
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")

    def load_int(self) -> None:
        super().load_int()
        self._check_int()

    def load_long(self) -> None:
        super().load_long()
        self._check_int()

    def load_long1(self) -> None:
        super().load_long1()
        self._check_int()

    def _check_int(self) -> None:
        if not -(1 << 63) <= self.stack[-1] < 1 << 63:
            raise UnsafePickle("a whole number of more than 64 bits")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def load_dict(self) -> None:
        values = self.pop_mark()
        self.append({})
        self._set_items(values)

    def _set_items(self, values: list[Any]) -> None:
        """Set keys and values in turn in the object on top."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise UnsafePickle("a value is set in what is not an object")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # The hash of a tuple would follow its nesting.
            if not isinstance(key, str | int):
                raise UnsafePickle("a key is neither text nor a whole number")
            target[key] = value

    def load_stop(self) -> None:
        if self.metastack or len(self.stack) != 1:
            raise UnsafePickle("the pickle ends with unfinished values")
        super().load_stop()


class _OpcodeTable(dict[int, Callable[[Any], None]]):
    """The opcodes that one pickle may use, and how many it has used."""

    n_used = 0

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.n_used += 1
        if self.n_used > MAX_OPCODES:
            raise UnsafePickle(f"more than {MAX_OPCODES} opcodes")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> NoReturn:
        name = next((opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code), None)
        if name is None:
            raise UnsafePickle("not an opcode of a pickle")
        raise UnsafePickle(f"the pickle asks to do {name}, and only plain data is read")


_PLAIN_OPCODE_NAMES = frozenset(
    """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    GLOBAL INST STACK_GLOBAL
    """.split()  # noqa: SIM905
)
"""The last three end in `find_class`, which names what the pickle asks for."""

_PLAIN_OPCODES: dict[int, Callable[[Any], None]] = {
    # By the name of the standard handler, so that the methods above take its place.
    ord(opcode.code): getattr(_PlainUnpickler, _StandardUnpickler.dispatch[ord(opcode.code)].__name__)
    for opcode in pickletools.opcodes
    if opcode.name in _PLAIN_OPCODE_NAMES
}
