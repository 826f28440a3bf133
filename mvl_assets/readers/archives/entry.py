"""One member of an archive, and the errors it may have. Shared by the walkers of tar and zip and by the index."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mvl_assets.common.rejects import RejectError

MAX_MEMBERS = 50_000_000
"""Largest number of members of an archive; their index takes about 5 GB on disk."""

BOMB_MIN_BYTES = 256 << 20
BOMB_RATIO = 200
"""A member that unpacks to more than both this many bytes and this many times its packed size counts as a bomb."""

_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member: its name with `/` between parts, and where its bytes are.

    A member that must not be read has an `error` (the error class of the row that names it) and a `detail`.

    Attributes:
        name: Path inside the archive.
        offset: Bytes from the start of the archive (of its joined parts): in a tar to the data, in a zip to the local
            header.
        compressed_size: Bytes it takes there.
        size: Bytes of the member itself.
        method: Zip's number of the compression, None in a tar.
        crc: CRC-32 of the member in a zip.
        error: Error class, None for a member that may be read.
        detail: What is wrong with it.
    """

    name: str
    offset: int = 0
    compressed_size: int = 0
    size: int = 0
    method: int | None = None
    crc: int = 0
    error: str | None = None
    detail: str = ""


class ArchiveError(RejectError):
    """An archive that cannot be read from some point on; rows that need the rest are rejected with this error."""

    def __init__(self, message: str, code: str = "broken_archive") -> None:
        super().__init__(code, message)


def is_bomb(size: int, compressed_size: int) -> bool:
    """Return whether a member expands so much that it is refused."""
    return size > BOMB_MIN_BYTES and size > BOMB_RATIO * compressed_size


def normalize_name(raw_name: str) -> tuple[str, str | None]:
    """Return the name without parts that would lead out of a folder, and what was wrong with it (None: nothing)."""
    name = raw_name.replace("\\", "/")
    parts = name.split("/")
    unsafe_reason = None
    if "\0" in name:
        unsafe_reason = "its name holds a zero byte"
    elif name.startswith("/") or _DRIVE.match(name):
        unsafe_reason = "its name is absolute"
    elif ".." in parts:
        unsafe_reason = "its name leads out of the archive's folder"
    safe_parts = [p for p in _DRIVE.sub("", name.replace("\0", "")).split("/") if p not in ("", ".", "..")]
    return "/".join(safe_parts).encode("utf-8", "backslashreplace").decode(), unsafe_reason
