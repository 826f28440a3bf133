"""Ids, row hashes and data versions. Every id in the lake comes from `compute_digest`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

KEY_SCHEME = 1
"""Version of how identities are made: the digest itself, and what enters request keys, prompt hashes, sample, question
and pack ids. Stored with them; a change that gives the same thing another identity must increment it."""

MODULUS = 1 << 128


def compute_digest(*parts: object) -> str:
    """Return 32 hex characters for a sequence of parts (BLAKE2b, 16 bytes).

    `bytes` enter as they are, everything else as canonical JSON. Parts are prefixed with their length, so ("ab", "c")
    and ("a", "bc") differ.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else encode_canonical_json(part)
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def encode_canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and without white space, as UTF-8.

    Raises:
        ValueError: A number is NaN or infinite, which JSON cannot express.
        TypeError: A value has no canonical JSON form.
    """
    return _encode(value).encode("utf-8", errors="surrogatepass")


def _to_json_type(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


# Built once: `json.dumps` with options builds an encoder per call, which is most of its time for short values.
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_to_json_type
).encode


def compute_row_hashes(rows: pa.Table | pa.RecordBatch, columns: Iterable[str]) -> list[str]:
    """Return one digest per row over the given columns."""
    column_names = sorted(columns)
    row_dicts: list[dict[str, Any]] = rows.select(column_names).to_pylist()
    return [compute_digest(row) for row in row_dicts]


class DigestSum:
    """Order-independent digest of a set of rows: the sum of their hashes modulo 2^128, with their count."""

    def __init__(self) -> None:
        self.total = 0
        self.n_hashes = 0

    def add(self, hashes: Iterable[str | None]) -> None:
        """Add the hashes of more rows; a missing hash counts as 0."""
        for value in hashes:
            self.total = (self.total + int(value or "0", 16)) % MODULUS
            self.n_hashes += 1

    def to_hex(self) -> str:
        """Return the count and the sum, such as `3-0f...`."""
        return f"{self.n_hashes}-{self.total:032x}"
