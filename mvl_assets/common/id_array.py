"""Arrays of 32-hex ids in 16 bytes each: sorted, looked up by binary search, and as columns."""

from __future__ import annotations

from binascii import hexlify, unhexlify
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ID_BYTES = 16
ID_DTYPE = np.dtype(f"S{ID_BYTES}")


def pack_ids(ids: Iterable[str]) -> np.ndarray:
    """Pack ids into an array of `ID_DTYPE`. One call for many ids costs a fifth of one call for each."""
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=ID_DTYPE)


def pack_id_column(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Pack a column of ids, none of them null, without making an object of each."""
    return np.frombuffer(decode_ids(column), dtype=ID_DTYPE)


def decode_ids(column: pa.ChunkedArray | pa.Array, n_bytes: int = ID_BYTES) -> bytes:
    """Return the bytes of a column of ids, or of other hexadecimal numbers, one after the other, without nulls.

    Raises:
        ValueError: A value does not have two digits for each of so many bytes.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return b"".join(_decode_chunk(chunk, n_bytes) for chunk in chunks)


def _decode_chunk(ids: pa.StringArray, n_bytes: int) -> bytes:
    if ids.null_count:
        ids = ids.drop_null()
    _, offsets_buffer, text = ids.buffers()
    if not len(ids) or text is None:
        return b""
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if not (np.diff(offsets) == 2 * n_bytes).all():
        raise ValueError(f"a column of ids holds a value that does not have {2 * n_bytes} digits")
    return unhexlify(memoryview(text)[offsets[0] : offsets[-1]])


def build_id_column(ids: bytes) -> pa.StringArray:
    """Return a column of ids from their bytes, one after the other."""
    offsets = np.arange(len(ids) // ID_BYTES + 1, dtype=np.int32) * (2 * ID_BYTES)
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(hexlify(ids)))


def unpack_id(item: bytes) -> str:
    """Return the hex form of one item of a packed array, of which numpy has dropped the trailing zero bytes."""
    return bytes(item).ljust(ID_BYTES, b"\0").hex()


def concatenate_ids(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Join packed arrays; without any the result is empty."""
    return np.concatenate([np.empty(0, dtype=ID_DTYPE), *arrays])


def find_ids(sorted_ids: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Look packed ids up in a sorted packed array.

    Returns:
        Two arrays as long as `ids`: positions in `sorted_ids`, and whether the id is there. Where it is not, the
        position means nothing; it is still a valid index unless `sorted_ids` is empty.
    """
    if not len(sorted_ids):
        return np.zeros(len(ids), dtype=np.intp), np.zeros(len(ids), dtype=bool)
    # In order, each search touches the memory of the one before it: a fifth of the time among millions of ids.
    order = np.argsort(ids)
    positions = np.empty(len(ids), dtype=np.intp)
    positions[order] = np.searchsorted(sorted_ids, ids[order])
    positions = np.minimum(positions, len(sorted_ids) - 1)
    return positions, sorted_ids[positions] == ids


def format_ids(batch: pa.RecordBatch) -> pa.Table:
    """Return a batch from DuckDB with its `UUID` columns as ids of 32 hex digits. Nothing is done per row."""
    columns = [_format_id_column(c.storage) if isinstance(c, pa.UuidArray) else c for c in batch.columns]
    return pa.Table.from_arrays(columns, names=batch.schema.names)


def _format_id_column(ids: pa.FixedSizeBinaryArray) -> pa.StringArray:
    data = ids.buffers()[1]
    start, stop = ids.offset * ID_BYTES, (ids.offset + len(ids)) * ID_BYTES
    formatted = build_id_column(b"" if data is None else bytes(memoryview(data)[start:stop]))
    return pc.if_else(ids.is_valid(), formatted, None) if ids.null_count else formatted
