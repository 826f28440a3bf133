"""Ids, row hashes and data versions. Every id in the lake comes from `compute_digest`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
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
    return blake2b(b"".join(map(_prepend_length, parts)), digest_size=16).hexdigest()


def _prepend_length(part: object) -> bytes:
    data = part if isinstance(part, bytes) else encode_canonical_json(part)
    return len(data).to_bytes(8, "little") + data


class RunningDigest:
    """`compute_digest` of parts that come one after the other."""

    def __init__(self) -> None:
        self._hasher = blake2b(digest_size=16)

    def add(self, part: object) -> None:
        """Add the next part."""
        data = part if isinstance(part, bytes) else encode_canonical_json(part)
        self._hasher.update(len(data).to_bytes(8, "little"))
        self._hasher.update(data)

    def to_hex(self) -> str:
        """Return the digest of the parts so far."""
        return self._hasher.hexdigest()


def encode_canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and without white space, as UTF-8.

    Raises:
        ValueError: A number is NaN or infinite, which JSON cannot express.
        TypeError: A value has no canonical JSON form.
    """
    if type(value) is int or (type(value) is str and value.isascii()):
        return encode_plain_json(value)
    return _encode(value).encode("utf-8", errors="surrogatepass")


encode_plain_json: Callable[[object], bytes] = msgspec.json.Encoder(order="deterministic").encode
"""Return what `encode_canonical_json` returns, ten times faster, for values made of text without lone surrogates,
integers, booleans, None, lists, and dictionaries with text as keys. Fractions would be written in another way."""


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


def compute_id_digests(before: Sequence[object], ids: Iterable[str], after: Sequence[object]) -> list[str]:
    """Return `compute_digest(*before, id, *after)` for each of many 32-hex ids, at a fraction of its cost."""
    prefix = b"".join(map(_prepend_length, before)) + (34).to_bytes(8, "little") + b'"'
    suffix = b'"' + b"".join(map(_prepend_length, after))
    return [blake2b(prefix + key.encode() + suffix, digest_size=16).hexdigest() for key in ids]


def compute_row_hashes(rows: pa.Table | pa.RecordBatch, columns: Iterable[str]) -> list[str]:
    """Return one digest per row over the given columns."""
    selected = rows.select(sorted(columns))
    row_dicts: list[dict[str, Any]] = selected.to_pylist()
    other_names = [field.name for field in selected.schema if not _is_plain(field.type)]
    return [
        compute_digest(row if any(row[name] is not None for name in other_names) else encode_plain_json(row))
        for row in row_dicts
    ]


def _is_plain(type_: pa.DataType) -> bool:
    """Return whether `encode_plain_json` may encode values of the type."""
    if pa.types.is_nested(type_):
        return not pa.types.is_map(type_) and all(
            _is_plain(type_.field(index).type) for index in range(type_.num_fields)
        )
    return any(
        is_type(type_)
        for is_type in (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
    )


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
        return format_digest_sum(self.n_hashes, self.total)


def format_digest_sum(n_hashes: int, total: int) -> str:
    """Return a `DigestSum` of this count and sum as text; sums of parts add up, modulo `MODULUS`."""
    return f"{n_hashes}-{total % MODULUS:032x}"
