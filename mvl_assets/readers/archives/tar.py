"""The members of a tar, from its headers alone (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual D.2).

`tarfile.TarInfo.frombuf` reads each header; walking from one to the next is done here, because `tarfile` keeps every
member it has seen, reads extended headers of any size into memory, and follows the maps of sparse files.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from mvl_assets.readers.archives.entry import MAX_MEMBERS, ArchiveError, Entry, normalize_name

BLOCK_BYTES = tarfile.BLOCKSIZE
MAX_EXTENDED_HEADER_BYTES = 1 << 20
"""Bytes an extended header (long names, pax records) may have."""

_UNSAFE_TYPES = {
    tarfile.LNKTYPE: "it is a hard link",
    tarfile.SYMTYPE: "it is a symbolic link",
    tarfile.CHRTYPE: "it is a device",
    tarfile.BLKTYPE: "it is a device",
    tarfile.FIFOTYPE: "it is a pipe",
}


def iter_entries(stream: BinaryIO, total_bytes: int) -> Iterator[Entry]:
    """Yield the files of a tar of `total_bytes` bytes, in order; one that must not be read has an error.

    Raises:
        ArchiveError: The tar cannot be followed any further.
    """
    offset, n_members = 0, 0
    name: str | None = None
    pax: dict[str, str] = {}
    global_pax: dict[str, str] = {}
    while True:
        header = _read_header(stream, offset, total_bytes)
        if header is None:
            return
        offset += BLOCK_BYTES
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = (
                _read_extended_header(stream, offset, header.size)
                .partition(b"\0")[0]
                .decode("utf-8", "surrogateescape")
            )
            name = text if header.type == tarfile.GNUTYPE_LONGNAME else name
            offset += _round_up_to_block(header.size)
            continue
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
            records = _parse_pax_records(_read_extended_header(stream, offset, header.size))
            if header.type == tarfile.XGLTYPE:
                global_pax.update(records)
            else:
                pax.update(records)
            offset += _round_up_to_block(header.size)
            continue
        effective_pax = {**global_pax, **pax}
        entry, next_offset = _parse_entry(stream, header, offset, total_bytes, effective_pax, name)
        name, pax = None, {}
        if entry is not None:
            n_members += 1
            if n_members > MAX_MEMBERS:
                raise ArchiveError(f"it has more than {MAX_MEMBERS} members")
            yield entry
        offset = next_offset


def _read_header(stream: BinaryIO, offset: int, total_bytes: int) -> tarfile.TarInfo | None:
    """Read the header at `offset`, None at the end mark."""
    stream.seek(offset)
    block = stream.read(BLOCK_BYTES)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # missing from typeshed, like related methods
        return None
    except (tarfile.HeaderError, ValueError) as error:
        if offset == 0:
            raise ArchiveError("it is neither a tar nor a zip, nor a compressed tar") from error
        position_text = f"at byte {offset} of {total_bytes}"
        raise ArchiveError(
            f"it ends early, {position_text}" if len(block) < BLOCK_BYTES else f"it is damaged {position_text}"
        ) from error


def _parse_entry(
    stream: BinaryIO,
    header: tarfile.TarInfo,
    data_offset: int,
    total_bytes: int,
    pax: dict[str, str],
    long_name: str | None,
) -> tuple[Entry | None, int]:
    """Return the member whose data start at `data_offset` (None for a folder), and where the next header starts."""
    size = _parse_decimal(pax["size"]) if "size" in pax else header.size
    if size < 0:
        raise ArchiveError(f"a member before byte {data_offset} has a negative size")
    safe_name, unsafe_reason = normalize_name(pax.get("GNU.sparse.name") or pax.get("path") or long_name or header.name)
    if header.type == tarfile.DIRTYPE:
        return None, data_offset
    if header.type in _UNSAFE_TYPES:
        return Entry(safe_name, error="unsafe_member", detail=_UNSAFE_TYPES[header.type]), data_offset
    is_sparse = header.type == tarfile.GNUTYPE_SPARSE
    has_more_blocks = is_sparse and _has_sparse_extension(stream, data_offset - BLOCK_BYTES, 482)
    while has_more_blocks:
        has_more_blocks = _has_sparse_extension(stream, data_offset, 504)
        data_offset += BLOCK_BYTES
    next_offset = data_offset + _round_up_to_block(size)
    if unsafe_reason is not None:
        return Entry(safe_name, error="unsafe_member", detail=unsafe_reason), next_offset
    if is_sparse or any(key.startswith("GNU.sparse.") for key in pax):
        return Entry(safe_name, error="unsafe_member", detail="it is a sparse file"), next_offset
    if data_offset + size > total_bytes:
        return Entry(safe_name, error="broken_archive", detail="the archive ends inside it"), next_offset
    return Entry(safe_name, data_offset, size, size), next_offset


def _has_sparse_extension(stream: BinaryIO, block_offset: int, flag_offset: int) -> bool:
    """Return whether one more block of an old GNU sparse map follows the block at `block_offset`."""
    stream.seek(block_offset + flag_offset)
    return stream.read(1) not in (b"", b"\0")


def _round_up_to_block(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _read_extended_header(stream: BinaryIO, offset: int, size: int) -> bytes:
    if not 0 <= size <= MAX_EXTENDED_HEADER_BYTES:
        raise ArchiveError(f"it has an extended header of {size} bytes at byte {offset}")
    stream.seek(offset)
    data = stream.read(size)
    if len(data) < size:
        raise ArchiveError(f"it ends inside a header, at byte {offset}")
    return data


def _parse_pax_records(data: bytes) -> dict[str, str]:
    r"""Parse records `<length> <key>=<value>\n`; the length counts the whole record."""
    records: dict[str, str] = {}
    offset = 0
    while offset < len(data) and data[offset] != 0:
        space = data.find(b" ", offset, offset + 20)
        length = _parse_decimal(data[offset:space].decode("ascii", "replace")) if space >= 0 else 0
        if space < 0 or not space - offset + 2 < length <= len(data) - offset:
            raise ArchiveError("it has a damaged pax header")
        key, _, value = data[space + 1 : offset + length - 1].partition(b"=")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        offset += length
    return records


def _parse_decimal(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise ArchiveError(f"it has a damaged pax header: {text[:20]!r} is not a number")
    return int(text)
