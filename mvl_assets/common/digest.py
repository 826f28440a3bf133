"""Identity: how ids, row hashes and data versions are made. Every id in the lake comes from `compute_digest`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

MODULUS = 1 << 128


def compute_digest(*parts: object) -> str:
    """32 hex characters for a sequence of parts.

    `bytes` count as they are, everything else as canonical JSON. Parts are length-prefixed, so ("ab", "c") and
    ("a", "bc") differ.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else encode_canonical_json(part)
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def encode_canonical_json(value: object) -> bytes:
    """Sorted keys, no white space, UTF-8; NaN is refused because it has no JSON form."""
    return _encode(value).encode("utf-8", errors="surrogatepass")


def _to_json_type(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


# Made once: `json.dumps` with settings makes an encoder for every call, which for short values is most of its time.
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_to_json_type
).encode


def compute_row_hashes(rows: pa.Table | pa.RecordBatch, columns: Iterable[str]) -> list[str]:
    """One digest per row over the given columns, in the order of their names."""
    column_names = sorted(columns)
    row_dicts: list[dict[str, Any]] = rows.select(column_names).to_pylist()
    return [compute_digest(row) for row in row_dicts]


class DigestSum:
    """An order-independent digest of a set of rows: the sum of their hashes modulo 2^128, with their count."""

    def __init__(self) -> None:
        self.total = 0
        self.n_hashes = 0

    def add(self, hashes: Iterable[str | None]) -> None:
        for value in hashes:
            self.total = (self.total + int(value or "0", 16)) % MODULUS
            self.n_hashes += 1

    def to_hex(self) -> str:
        return f"{self.n_hashes}-{self.total:032x}"
