"""The members of a tar, from its headers alone (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual D.2).

`tarfile.TarInfo.frombuf` reads each header; walking from one to the next is done here, because `tarfile` keeps every
member it has seen, reads extended headers of any size into memory, and follows the maps of sparse files.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from mvl_assets.readers.archives.entry import MAX_MEMBERS, ArchiveError, Entry, named

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED = 1 << 20
"""Bytes an extended header (long names, pax records) may have."""

_FORBIDDEN = {
    tarfile.LNKTYPE: "it is a hard link",
    tarfile.SYMTYPE: "it is a symbolic link",
    tarfile.CHRTYPE: "it is a device",
    tarfile.BLKTYPE: "it is a device",
    tarfile.FIFOTYPE: "it is a pipe",
}


def walk(stream: BinaryIO, total: int) -> Iterator[Entry]:
    """The files of a tar of `total` bytes, in order; what must not be read has an error.

    Raises `ArchiveError` where the tar cannot be followed any further.
    """
    at, members = 0, 0
    name: str | None = None
    pax: dict[str, str] = {}
    for_all: dict[str, str] = {}
    while True:
        header = _header(stream, at, total)
        if header is None:
            return
        at += BLOCK
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = _extended(stream, at, header.size).partition(b"\0")[0].decode("utf-8", "surrogateescape")
            name = text if header.type == tarfile.GNUTYPE_LONGNAME else name
            at += _padded(header.size)
            continue
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
            records = _pax_records(_extended(stream, at, header.size))
            if header.type == tarfile.XGLTYPE:
                for_all.update(records)
            else:
                pax.update(records)
            at += _padded(header.size)
            continue
        told = {**for_all, **pax}
        entry, after = _entry(stream, header, at, total, told, name)
        name, pax = None, {}
        if entry is not None:
            members += 1
            if members > MAX_MEMBERS:
                raise ArchiveError(f"it has more than {MAX_MEMBERS} members")
            yield entry
        at = after


def _header(stream: BinaryIO, at: int, total: int) -> tarfile.TarInfo | None:
    """The header at `at`, None at the end mark."""
    stream.seek(at)
    block = stream.read(BLOCK)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # left out of typeshed, as its kin are
        return None
    except (tarfile.HeaderError, ValueError) as error:
        if at == 0:
            raise ArchiveError("it is neither a tar nor a zip, nor a compressed tar") from error
        where = f"at byte {at} of {total}"
        raise ArchiveError(f"it ends early, {where}" if len(block) < BLOCK else f"it is damaged {where}") from error


def _entry(
    stream: BinaryIO, header: tarfile.TarInfo, at: int, total: int, pax: dict[str, str], long_name: str | None
) -> tuple[Entry | None, int]:
    """The member whose data begin at `at` (None for a folder), and where the next header begins."""
    size = _number(pax["size"]) if "size" in pax else header.size
    if size < 0:
        raise ArchiveError(f"a member before byte {at} has a negative size")
    own, trouble = named(pax.get("GNU.sparse.name") or pax.get("path") or long_name or header.name)
    if header.type == tarfile.DIRTYPE:
        return None, at
    if header.type in _FORBIDDEN:
        return Entry(own, error="unsafe_member", note=_FORBIDDEN[header.type]), at
    sparse = header.type == tarfile.GNUTYPE_SPARSE
    more = sparse and _goes_on(stream, at - BLOCK, 482)
    while more:
        more = _goes_on(stream, at, 504)
        at += BLOCK
    after = at + _padded(size)
    if trouble is not None:
        return Entry(own, error="unsafe_member", note=trouble), after
    if sparse or any(key.startswith("GNU.sparse.") for key in pax):
        return Entry(own, error="unsafe_member", note="it is a sparse file"), after
    if at + size > total:
        return Entry(own, error="broken_archive", note="the archive ends inside it"), after
    return Entry(own, at, size, size), after


def _goes_on(stream: BinaryIO, at: int, place: int) -> bool:
    """Whether one more block of an old GNU sparse map follows the block at `at`."""
    stream.seek(at + place)
    return stream.read(1) not in (b"", b"\0")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _extended(stream: BinaryIO, at: int, size: int) -> bytes:
    if not 0 <= size <= MAX_EXTENDED:
        raise ArchiveError(f"it has an extended header of {size} bytes at byte {at}")
    stream.seek(at)
    data = stream.read(size)
    if len(data) < size:
        raise ArchiveError(f"it ends inside a header, at byte {at}")
    return data


def _pax_records(data: bytes) -> dict[str, str]:
    """`<length> <key>=<value>\\n`, one after another; the length counts the whole record."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at] != 0:
        space = data.find(b" ", at, at + 20)
        length = _number(data[at:space].decode("ascii", "replace")) if space >= 0 else 0
        if space < 0 or not space - at + 2 < length <= len(data) - at:
            raise ArchiveError("it has a damaged pax header")
        key, _, value = data[space + 1 : at + length - 1].partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at += length
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise ArchiveError(f"it has a damaged pax header: {text[:20]!r} is no number")
    return int(text)
