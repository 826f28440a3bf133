"""Ids, row hashes and data versions. Every id in the lake comes from `compute_digest`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

import msgspec
import numpy as np
import pyarrow as pa

from mvl_assets.common.id_array import build_id_column, decode_ids

KEY_SCHEME = 1
"""Version of how identities are made: the digest itself, and what enters request keys, prompt hashes, sample, question
and pack ids. Stored with them; a change that gives the same thing another identity must increment it."""

MODULUS = 1 << 128


def compute_digest(*parts: object) -> str:
    """Return 32 hex characters for a sequence of parts (BLAKE2b, 16 bytes).

    `bytes` enter as they are, everything else as canonical JSON. Parts are prefixed with their length, so ("ab", "c")
    and ("a", "bc") differ.
    """
    preimage = prepend_length(parts[0]) if len(parts) == 1 else b"".join(map(prepend_length, parts))
    return blake2b(preimage, digest_size=16).hexdigest()


def prepend_length(part: object) -> bytes:
    """Return one part as `compute_digest` digests it."""
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


def compute_raw_digests(preimages: Iterable[bytes]) -> bytes:
    """Return 16 bytes for each sequence of parts, whose `prepend_length` are given joined; one after the other."""
    return b"".join([blake2b(preimage, digest_size=16).digest() for preimage in preimages])


def compute_id_digests(before: Sequence[object], ids: Iterable[str], after: Sequence[object]) -> list[str]:
    """Return `compute_digest(*before, id, *after)` for each of many 32-hex ids, at a fraction of its cost."""
    prefix = b"".join(map(prepend_length, before)) + (34).to_bytes(8, "little") + b'"'
    suffix = b'"' + b"".join(map(prepend_length, after))
    return [blake2b(prefix + key.encode() + suffix, digest_size=16).hexdigest() for key in ids]


def compute_row_hashes(rows: pa.Table | pa.RecordBatch, columns: Iterable[str]) -> pa.StringArray:
    """Return one digest per row over the given columns: `compute_digest` of the row as a dictionary."""
    selected = rows.select(sorted(columns))
    names = tuple(selected.schema.names)
    row_type = _build_row_type(names)
    other_indices = [index for index, field in enumerate(selected.schema) if not _is_plain(field.type)]
    encoded_rows = (
        encode_canonical_json(dict(zip(names, row, strict=True)))
        if any(row[index] is not None for index in other_indices)
        else encode_plain_json(row_type(*row))
        for row in zip(*(column.to_pylist() for column in selected.columns), strict=True)
    )
    return build_id_column(compute_raw_digests(map(prepend_length, encoded_rows)))


@lru_cache(maxsize=64)
def _build_row_type(names: tuple[str, ...]) -> type[msgspec.Struct]:
    """Return a class whose instances are written as a dictionary with these keys, but cost less to make than one."""
    fields = [f"column_{index}" for index in range(len(names))]
    return msgspec.defstruct("Row", fields, rename=dict(zip(fields, names, strict=True)))


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

    def add(self, hashes: pa.ChunkedArray | pa.Array) -> None:
        """Add the hashes of more rows; a missing hash counts as 0."""
        words = np.frombuffer(decode_ids(hashes), dtype=">u4").reshape(-1, 4)
        for shift, word_sum in zip((96, 64, 32, 0), words.sum(axis=0, dtype=np.uint64).tolist(), strict=True):
            self.total += word_sum << shift
        self.total %= MODULUS
        self.n_hashes += len(hashes)

    def to_hex(self) -> str:
        """Return the count and the sum, such as `3-0f...`."""
        return format_digest_sum(self.n_hashes, self.total)


def format_digest_sum(n_hashes: int, total: int) -> str:
    """Return a `DigestSum` of this count and sum as text; sums of parts add up, modulo `MODULUS`."""
    return f"{n_hashes}-{total % MODULUS:032x}"
