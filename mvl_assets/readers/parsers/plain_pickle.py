r"""Pickles that hold nothing but plain data, read by an interpreter that has no way to call anything.

    (lp0                a list,
    (dp1                in it an object,
    S'ref_id'           with the key 'ref_id'
    I17                 and the value 17
    sa.                 (protocol 0, as Python 2 wrote it)

`pickle.load` runs what a pickle names, and a subclass of `Unpickler` that refuses names still lets a few bytes claim
gigabytes (a memo slot number is an array index in C). So the opcodes are interpreted here: the standard library's
`pickletools` reads each with its argument, and only those that build lists, objects, tuples, text, numbers, booleans
and None have a meaning. Everything else ends the reading, and the error names what the pickle asked for.

What a file can cost is bounded: its bytes, its opcodes (each makes at most one value), and whole numbers of 64 bits.
Values may be nested as deeply as the opcodes allow and may share parts or contain themselves, so do not walk them
recursively. Specification of the opcodes: CPython, Lib/pickletools.py.
"""

from __future__ import annotations

import codecs
import mmap
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

MAX_BYTES = 128 << 20
MAX_OPCODES = 12_000_000
"""About twice what the largest of the RefCOCO family needs (142,210 expressions, some 45 opcodes each). At most one
value each: the costliest file there can be takes about 1.5 GB."""

_MARK = object()


class UnsafePickle(Exception):
    """Why a file is not read: not a pickle, cut off, too large, or asking for more than plain data."""


def load(path: Path) -> Any:
    """The value in the file. Raises `UnsafePickle`, also when the file cannot be opened.

    Text of Python 2 that is no UTF-8 is taken as Latin-1. Keys of objects are text or whole numbers.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size > MAX_BYTES:
                raise UnsafePickle(f"the file has {size} bytes, more than {MAX_BYTES}")
            if size == 0:
                raise UnsafePickle("the file is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _run(data)
    except OSError as error:
        raise UnsafePickle(f"cannot be read: {error.strerror}") from error


def _run(data: mmap.mmap) -> Any:
    vm = _Vm()
    try:
        for _ in range(MAX_OPCODES):
            code = data.read(1)
            if code == b".":
                return vm.get_result()
            if code not in _OPCODE_STEPS:
                raise UnsafePickle("no opcode of a pickle" if code else "the file ends before the pickle does")
            read_argument, execute = _OPCODE_STEPS[code]
            execute(vm, None if read_argument is None else read_argument(data))
    except UnsafePickle as error:
        raise UnsafePickle(f"{error} (before byte {data.tell()})") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise UnsafePickle(f"not a whole pickle: {str(error)[:120]} (before byte {data.tell()})") from error
    raise UnsafePickle(f"more than {MAX_OPCODES} opcodes")


class _Vm:
    """The stack and the memo of an unpickler for plain data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def get_result(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise UnsafePickle("the pickle ends with unfinished values")
        return self.stack[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_text(self, value: str) -> None:
        """Text of Python 2, its bytes taken as Latin-1 so far."""
        self.stack.append(_decode_text(value.encode("latin-1")))

    def push_int(self, value: int) -> None:
        if not -(1 << 63) <= value < 1 << 63:
            raise UnsafePickle("a whole number of more than 64 bits")
        self.stack.append(value)

    def put(self, slot: int) -> None:
        self.memo[slot] = self.stack[-1]

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, slot: int) -> None:
        self.stack.append(self.memo[slot])

    def append(self) -> None:
        value = self.stack.pop()
        self._get_list().append(value)

    def extend(self) -> None:
        values = self.pop_mark()
        self._get_list().extend(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items(self, values: list[Any]) -> None:
        """Sets keys and values in turn in the object on top."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise UnsafePickle("a value is set in what is no object")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                raise UnsafePickle("a key is neither text nor a whole number")
            target[key] = value

    def make_dict(self) -> None:
        values = self.pop_mark()
        self.stack.append({})
        self.set_items(values)

    def make_tuple(self, length: int) -> None:
        values = tuple(self.stack[-length:])
        del self.stack[-length:]
        self.stack.append(values)

    def pop_mark(self) -> list[Any]:
        """Takes what lies above the highest mark, and the mark, off the stack."""
        mark_index = len(self.stack) - 1
        while self.stack[mark_index] is not _MARK:
            mark_index -= 1
            if mark_index < 0:
                raise UnsafePickle("a mark is missing")
        values = self.stack[mark_index + 1 :]
        del self.stack[mark_index:]
        return values

    def reject(self, opcode_name: str, argument: Any) -> NoReturn:
        global_name = argument if opcode_name in ("GLOBAL", "INST") else None
        if opcode_name == "STACK_GLOBAL":
            global_name = " ".join(part for part in self.stack[-2:] if isinstance(part, str))
        requested_action = f"for {'.'.join(global_name.split())[:120]!a}" if global_name else f"to do {opcode_name}"
        raise UnsafePickle(f"the pickle asks {requested_action}, and only plain data is read")

    def _get_list(self) -> list[Any]:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise UnsafePickle("a value is added to what is no list")
        return target


def _decode_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _read_quoted_string(data: mmap.mmap) -> str:
    """The argument of STRING; `pickletools` takes ASCII only, and Python 2 wrote any bytes as escapes."""
    line = data.readline()
    if len(line) < 3 or line[:1] not in (b"'", b'"') or line[-2:] != line[:1] + b"\n":
        raise UnsafePickle("a text without its quotes")
    return codecs.escape_decode(line[1:-2])[0].decode("latin-1")


ArgumentReader = Callable[[mmap.mmap], Any]
OpcodeHandler = Callable[[_Vm, Any], None]

_OPCODE_HANDLERS: dict[str, OpcodeHandler] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda _machine, _: None),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Vm.push_int),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _Vm.push_text),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Vm.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), _Vm.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Vm.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Vm.get),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": lambda machine, _: machine.push(_MARK),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "APPEND": lambda machine, _: machine.append(),
    "APPENDS": lambda machine, _: machine.extend(),
    "SETITEM": lambda machine, _: machine.set_item(),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": lambda machine, _: machine.make_dict(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
}


def _build_opcode_step(opcode: pickletools.OpcodeInfo) -> tuple[ArgumentReader | None, OpcodeHandler]:
    """How the opcode's argument is read, and what it does."""
    name = opcode.name
    read_argument = (
        _read_quoted_string
        if name == "STRING"
        else None
        if opcode.arg is None
        else cast(ArgumentReader, opcode.arg.reader)
    )
    return read_argument, _OPCODE_HANDLERS.get(name, lambda machine, argument: machine.reject(name, argument))


_OPCODE_STEPS = {opcode.code.encode("latin-1"): _build_opcode_step(opcode) for opcode in pickletools.opcodes}
