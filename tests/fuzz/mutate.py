"""Damage to valid input, the same for the same random numbers: bytes for any format, values for JSON and Parquet."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MOST = 4
"""Changes made to one input."""

_NUMBER = re.compile(rb"\d+")
_INTERESTING = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_NUMBERS = (b"0", b"-1", b"99999999999999999999", b"1e400", b"NaN", b"65535", b"4294967296", b"9" * 5000)

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 1 << 40, 10**30, 0.5, -0.0, math.nan, math.inf, -1e308),
    *("", " ", "\0", "\ud800", "\udc80", "﻿", "‮", "a" * 300, "x" * 70_000, "7", "９" * 5000, "9" * 5000),
    *(
        "<image>",
        "<image>" * 3,
        "<video>",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "a\\..\\..\\b",
        "http://127.0.0.1/x",
    ),
    *("[1,", '{"a": NaN}', "[" * 2000, "data:image/png;base64,AAAA", "{id}", "A", "(B)", "human", "gpt", "system"),
    *([], {}, [[]], [None], [{}], {"": ""}, {"bytes": None, "path": None}, {"bytes": "no", "path": 1}, [0, 0, 0, 0]),
    *(
        [math.nan] * 4,
        [1, 2, 3],
        list(range(40)),
        {"from": "human", "value": None},
        [["a"], ["b"]],
        {"a": {"a": {"a": 1}}},
    ),
)


def damaged(data: bytes, name: str, rng: random.Random, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """Another content for the file `name`: by its format where that is known, else byte by byte."""
    kind = name.rpartition(".")[2].lower()
    if kind in ("json", "jsonl", "parquet") and rng.random() < 0.7:
        try:
            return _PARSED[kind](data, rng)
        except (ValueError, pa.ArrowException, TypeError, OverflowError):
            pass  # it does not fit back into the format: bytes then
    return damaged_bytes(data, rng, tokens, others)


def damaged_bytes(data: bytes, rng: random.Random, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    result = bytearray(data)
    for _ in range(rng.randint(1, MOST)):
        _BYTES[rng.randrange(len(_BYTES))](result, rng, tokens, others)
    return bytes(result)


Change = Callable[[bytearray, random.Random, Sequence[bytes], Sequence[bytes]], None]


def _place(data: bytearray, rng: random.Random) -> int:
    """Headers come first and directories last: a third of all places is among the first or the last 200 bytes."""
    at = rng.randrange(len(data) + 1)
    near = rng.random()
    return at % 200 if near < 0.2 and data else len(data) - at % min(200, len(data) + 1) if near < 0.33 else at


def _flip(data: bytearray, rng: random.Random, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    if data:
        data[_place(data, rng) % len(data)] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    if data:
        data[_place(data, rng) % len(data)] = rng.randrange(256)


def _number(data: bytearray, rng: random.Random, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    width, value = rng.choice((1, 2, 4, 8)), rng.choice(_INTERESTING)
    at = _place(data, rng)
    data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))


def _digits(data: bytearray, rng: random.Random, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    numbers = list(_NUMBER.finditer(data[: 1 << 16]))
    if numbers:
        one = rng.choice(numbers)
        data[one.start() : one.end()] = rng.choice(_NUMBERS)


def _cut(data: bytearray, rng: random.Random, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: random.Random, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 16, 512))]


def _repeat(data: bytearray, rng: random.Random, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    at = _place(data, rng)
    piece = data[at : at + rng.choice((1, 4, 64, 1024))]
    data[at:at] = piece * rng.choice((1, 2, 50))


def _token(data: bytearray, rng: random.Random, tokens: Sequence[bytes], _: Sequence[bytes]) -> None:
    if tokens:
        at = _place(data, rng)
        token = rng.choice(tokens)
        data[at : at + rng.choice((0, len(token)))] = token


def _splice(data: bytearray, rng: random.Random, _: Sequence[bytes], others: Sequence[bytes]) -> None:
    if others:
        other = rng.choice(others)
        data[_place(data, rng) :] = other[rng.randrange(len(other) + 1) :]


_BYTES: tuple[Change, ...] = (_flip, _flip, _set, _number, _number, _digits, _cut, _remove, _repeat, _token, _splice)


def _json(data: bytes, rng: random.Random) -> bytes:
    return _dumped(_changed(json.loads(data), rng), rng)


def _jsonl(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    at = rng.randrange(len(lines)) if lines else 0
    lines[at : at + 1] = [_dumped(_changed(json.loads(lines[at]), rng), rng)] if lines else []
    return b"\n".join(lines)


def _dumped(value: Any, rng: random.Random) -> bytes:
    return json.dumps(value, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with some of what is inside it replaced by something strange, removed or repeated."""
    box = [value]
    for _ in range(rng.randint(1, MOST)):
        holder, key = _somewhere(box, rng)
        how = 0.0 if holder is box else rng.random()
        if how < 0.7:
            holder[key] = copy.deepcopy(rng.choice(STRANGE))
        elif how < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[f"{key}_"] = copy.deepcopy(holder[key])
    return box[0]


def _somewhere(holder: Any, rng: random.Random) -> tuple[Any, Any]:
    """A list or object inside, and a place in it; deeper ones are likelier than in a walk over all."""
    while True:
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        if not (isinstance(holder[key], dict | list) and holder[key]) or rng.random() < 0.1:
            return holder, key
        holder = holder[key]


def _parquet(data: bytes, rng: random.Random) -> bytes:
    """A column of another type, under another name, twice, gone; or single values that are strange."""
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    at = rng.randrange(table.num_columns)
    name = table.column_names[at]
    how = rng.randrange(4)
    if how == 0:
        table = table.rename_columns(
            [rng.choice([*table.column_names, "x"]) if n == name else n for n in table.column_names]
        )
    elif how == 1:
        table = table.drop_columns([name]) if table.num_columns > 1 else table.slice(0, 0)
    elif how == 2:
        table = table.set_column(at, name, _column(len(table), rng))
    else:
        rows = table.to_pylist()
        changed = _changed(rows, rng)
        table = pa.Table.from_pylist([row for row in changed if isinstance(row, dict)])
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, row_group_size=rng.choice((1, 3, 100)), compression=rng.choice(("snappy", "none", "zstd"))
    )
    return sink.getvalue().to_pybytes()


def _column(rows: int, rng: random.Random) -> pa.Array:
    makers: tuple[Callable[[], pa.Array], ...] = (
        lambda: pa.nulls(rows),
        lambda: pa.array([rng.choice((0, -1, 1 << 62)) for _ in range(rows)], pa.int64()),
        lambda: pa.array([rng.choice((math.nan, 1.5)) for _ in range(rows)]),
        lambda: pa.array([b"\xff\xfe bytes"] * rows, pa.binary()),
        lambda: pa.Array.from_buffers(pa.string(), rows, pa.array([b"\xff\xfe"] * rows, pa.binary()).buffers()),
        lambda: pa.array([1 << 62] * rows, pa.int64()).cast(pa.timestamp("us")),
        lambda: pa.array([(1 << 31) - 1] * rows, pa.int32()).cast(pa.date32()),
        lambda: pa.array([["a", None]] * rows),
        lambda: pa.array([{"bytes": None, "path": "../x"}] * rows),
        lambda: pa.array(["x"] * rows).dictionary_encode(),
        lambda: pa.array([[("k", "v"), ("k", "w")]] * rows, pa.map_(pa.string(), pa.string())),
    )
    return rng.choice(makers)()


_PARSED: dict[str, Callable[[bytes, random.Random], bytes]] = {"json": _json, "jsonl": _jsonl, "parquet": _parquet}
