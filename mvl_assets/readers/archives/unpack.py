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

from mvl_assets.errors import MachineError
from mvl_assets.readers.archives.entry import ArchiveError, is_bomb

MAX_UNPACKED = 4 << 40
"""Bytes one archive may unpack to."""

KEEP_FREE = 1 << 30
"""Bytes of the disk that unpacking leaves to others."""

_CHUNK = 1 << 17
_ROOM_ASKED_EVERY = 64 << 20
_KINDS: dict[bytes, Callable[[BinaryIO], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)


def is_compressed(stream: BinaryIO) -> bool:
    stream.seek(0)
    head = stream.read(6)
    return any(head.startswith(magic) for magic in _KINDS)


def unpack(stream: BinaryIO, packed: int, target: IO[bytes], folder: Path) -> ArchiveError | None:
    """Writes what `stream` (`packed` bytes) unpacks to into `target`, a file in `folder`.

    Returns why it ended early: what came before is kept when the archive was cut off, nothing of a bomb is.
    Raises `MachineError` when the disk is too small.
    """
    stream.seek(0)
    head = stream.read(6)
    stream.seek(0)
    source = next(kind for magic, kind in _KINDS.items() if head.startswith(magic))(stream)
    done = asked = 0
    while True:
        if done >= asked:
            _make_sure_of_room(folder)
            asked = done + _ROOM_ASKED_EVERY
        try:
            chunk = source.read1(_CHUNK)  # `read` would lose what comes before a break in the same chunk
        except _BROKEN as error:
            return ArchiveError(f"it cannot be unpacked behind byte {done}: {error}")
        if not chunk:
            return None
        done += len(chunk)
        if done > MAX_UNPACKED or is_bomb(done, packed):
            target.seek(0)
            target.truncate()
            return ArchiveError(f"it unpacks from {packed} to more than {done} bytes", "archive_bomb")
        target.write(chunk)


def _make_sure_of_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < KEEP_FREE + _ROOM_ASKED_EVERY:
        raise MachineError(
            f"the disk of {folder} is too full to unpack archives: {free >> 20} MB are free",
            hint="free some space there, or unpack the archives elsewhere and link the folder",
        )
