"""A compressed tar, written out once as a plain one."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

from mvl_assets.errors import InfrastructureError
from mvl_assets.readers.archives.entry import ArchiveError, is_bomb

MAX_UNPACKED_BYTES = 4 << 40
"""Bytes one archive may unpack to."""

MIN_FREE_BYTES = 1 << 30
"""Bytes of the disk that unpacking leaves free."""

_CHUNK_BYTES = 1 << 17
_FREE_SPACE_CHECK_BYTES = 64 << 20
_DECOMPRESSORS: dict[bytes, Callable[[BinaryIO], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_DECOMPRESSION_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)


def is_compressed(stream: BinaryIO) -> bool:
    """Return whether a stream begins like a gzip file."""
    stream.seek(0)
    head = stream.read(6)
    return any(head.startswith(magic) for magic in _DECOMPRESSORS)


def unpack(stream: BinaryIO, packed_bytes: int, target: IO[bytes], folder: Path) -> ArchiveError | None:
    """Write what `stream` unpacks to into `target`, a file in `folder`.

    Args:
        stream: The compressed tar.
        packed_bytes: Its size.
        target: Receives the plain tar.
        folder: Where `target` is, for the check of free space.

    Returns:
        Why it ended early, else None. What came before is kept if the archive was cut off, and nothing of a bomb.

    Raises:
        InfrastructureError: The disk is too small.
    """
    stream.seek(0)
    head = stream.read(6)
    stream.seek(0)
    source = next(open_decompressor for magic, open_decompressor in _DECOMPRESSORS.items() if head.startswith(magic))(
        stream
    )
    unpacked_bytes = next_check_at = 0
    while True:
        if unpacked_bytes >= next_check_at:
            _ensure_free_space(folder)
            next_check_at = unpacked_bytes + _FREE_SPACE_CHECK_BYTES
        try:
            chunk = source.read1(_CHUNK_BYTES)  # `read` would lose the bytes before a break in the same chunk
        except _DECOMPRESSION_ERRORS as error:
            return ArchiveError(f"it cannot be unpacked after byte {unpacked_bytes}: {error}")
        if not chunk:
            return None
        unpacked_bytes += len(chunk)
        if unpacked_bytes > MAX_UNPACKED_BYTES or is_bomb(unpacked_bytes, packed_bytes):
            target.seek(0)
            target.truncate()
            return ArchiveError(f"it unpacks from {packed_bytes} to more than {unpacked_bytes} bytes", "archive_bomb")
        target.write(chunk)


def _ensure_free_space(folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < MIN_FREE_BYTES + _FREE_SPACE_CHECK_BYTES:
        raise InfrastructureError(
            f"the disk of {folder} is too full to unpack archives: {free_bytes >> 20} MB are free",
            hint="free some space there, or unpack the archives elsewhere and link the folder",
        )
