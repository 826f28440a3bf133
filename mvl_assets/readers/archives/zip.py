"""The members of a zip, from its central directory (PKWARE APPNOTE.TXT 6.3, sections 4.3 to 4.5).

Walked here and not with `zipfile`, which holds the whole directory in memory and refuses archives in several parts
(`x.z01`, ..., `x.zip`: offsets there count from the start of a part). `zipfile` unpacks the members (`member`).
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mvl_assets.readers.archives.entry import MAX_MEMBERS, ArchiveError, Entry, is_bomb, normalize_name

_EOCD = struct.Struct("<4s4H2LH")
_EOCD64_LOCATOR = struct.Struct("<4sLQL")
_EOCD64 = struct.Struct("<4sQ2H2L4Q")
_ZIP64_SENTINEL = 0xFFFFFFFF  # of a size or place that only the zip64 record has
_CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
LOCAL_HEADER = struct.Struct("<4s5H3L2H")

_SUPPORTED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_UTF8_FLAG, _ENCRYPTED_FLAGS = 1 << 11, 1 | 1 << 6


def iter_entries(stream: BinaryIO, part_offsets: Sequence[int], total_bytes: int) -> Iterator[Entry]:
    """Yield the files of a zip; one that must not be read has an error.

    Args:
        stream: The zip, its parts joined.
        part_offsets: Where each part starts in it.
        total_bytes: Its size.

    Raises:
        ArchiveError: The directory cannot be read.
    """
    directory = _find_central_directory(stream, part_offsets, total_bytes)
    offset = directory.start
    stream.seek(offset)
    n_members = 0
    while offset + _CENTRAL_HEADER.size <= directory.end:
        record = stream.read(_CENTRAL_HEADER.size)
        fields = _CENTRAL_HEADER.unpack(record) if len(record) == _CENTRAL_HEADER.size else (b"",)
        if fields[0] != b"PK\1\2":
            raise ArchiveError(f"its directory is damaged at byte {offset}")
        variable = stream.read(fields[10] + fields[11] + fields[12])
        offset += _CENTRAL_HEADER.size + len(variable)
        n_members += 1
        if n_members > MAX_MEMBERS:
            raise ArchiveError(f"it has more than {MAX_MEMBERS} members")
        entry = _parse_entry(fields, variable, directory, part_offsets, total_bytes)
        if entry is not None:
            yield entry


@dataclass(frozen=True, slots=True)
class _CentralDirectory:
    """Location of the central directory.

    Attributes:
        start: Byte where it starts.
        end: Byte where it ends.
        offset_base: Bytes before the zip in its file; None when offsets count from the start of a part.
    """

    start: int
    end: int
    offset_base: int | None


def _find_central_directory(stream: BinaryIO, part_offsets: Sequence[int], total_bytes: int) -> _CentralDirectory:
    tail_offset = max(0, total_bytes - (1 << 16) - _EOCD.size)
    stream.seek(tail_offset)
    tail = stream.read(total_bytes - tail_offset)
    record_offset = tail.rfind(b"PK\5\6")
    if record_offset < 0 or len(tail) - record_offset < _EOCD.size:
        raise ArchiveError("it has no zip directory at its end; perhaps it was cut off")
    end = tail_offset + record_offset
    _, disk, disk_of_directory, _, _, size, offset, _ = _EOCD.unpack_from(tail, record_offset)
    zip64_end = _read_zip64_end(stream, end, part_offsets)
    if zip64_end is not None:
        end, disk, disk_of_directory, size, offset = zip64_end
    elif _ZIP64_SENTINEL in (size, offset):
        raise ArchiveError("its zip64 directory cannot be found")
    if disk == 0:
        start, offset_base = end - size, end - size - offset
    else:
        if disk + 1 != len(part_offsets):
            raise ArchiveError(f"it was written in {disk + 1} parts, of which {len(part_offsets)} are there")
        start, offset_base = part_offsets[min(disk_of_directory, disk)] + offset, None
    if start < 0 or (offset_base or 0) < 0 or start + size > end:
        raise ArchiveError("its directory is not where it says")
    return _CentralDirectory(start, start + size, offset_base)


def _read_zip64_end(stream: BinaryIO, end: int, part_offsets: Sequence[int]) -> tuple[int, int, int, int, int] | None:
    """Read (place, disk, disk of the directory, size of the directory, its offset) from a zip64 end record, if any."""
    stream.seek(max(0, end - _EOCD64_LOCATOR.size))
    locator = stream.read(_EOCD64_LOCATOR.size)
    if len(locator) == _EOCD64_LOCATOR.size and locator.startswith(b"PK\6\7"):
        _, disk, offset, _ = _EOCD64_LOCATOR.unpack(locator)
        adjacent_offset = end - _EOCD64_LOCATOR.size - _EOCD64.size
        for record_offset in (adjacent_offset, part_offsets[min(disk, len(part_offsets) - 1)] + offset):
            stream.seek(max(0, min(record_offset, end)))
            record = stream.read(_EOCD64.size)
            if len(record) == _EOCD64.size and record.startswith(b"PK\6\6"):
                fields = _EOCD64.unpack(record)
                return record_offset, fields[4], fields[5], fields[8], fields[9]
    return None


def _parse_entry(
    fields: Sequence[int], variable: bytes, directory: _CentralDirectory, part_offsets: Sequence[int], total_bytes: int
) -> Entry | None:
    """Return one record of the directory as a member, None for a folder."""
    _, version, _, flags, method, _, _, crc, compressed_size, size, name_size, extra_size, _, disk, _, mode, offset = (
        fields
    )
    raw_name = variable[:name_size]
    extra = _parse_extra_fields(variable[name_size : name_size + extra_size])
    size, compressed_size, offset, disk = _apply_zip64_sizes(extra.get(1, b""), size, compressed_size, offset, disk)
    name = _decode_name(raw_name, flags, extra.get(0x7075, b""))
    if name.endswith("/"):
        return None
    safe_name, unsafe_reason = normalize_name(name)
    kind = stat.S_IFMT(mode >> 16) if version >> 8 == 3 else 0
    if kind not in (0, stat.S_IFREG):
        unsafe_reason = "it is a symbolic link" if kind == stat.S_IFLNK else "it is not a regular file"
    if unsafe_reason is not None:
        return Entry(safe_name, error="unsafe_member", detail=unsafe_reason)
    if flags & _ENCRYPTED_FLAGS:
        return Entry(safe_name, error="encrypted_member", detail="it is encrypted")
    if method not in _SUPPORTED_METHODS:
        return Entry(safe_name, error="unsupported_member", detail=f"it is packed by the method {method}")
    if is_bomb(size, compressed_size):
        return Entry(safe_name, error="archive_bomb", detail=f"it would unpack from {compressed_size} to {size} bytes")
    base_offset = (
        directory.offset_base
        if directory.offset_base is not None
        else part_offsets[disk]
        if disk < len(part_offsets)
        else total_bytes
    )
    member_offset = base_offset + offset
    if member_offset + LOCAL_HEADER.size + compressed_size > directory.start or (
        method == zipfile.ZIP_STORED and size != compressed_size
    ):
        return Entry(safe_name, error="broken_archive", detail="its data are not where the directory says")
    return Entry(safe_name, member_offset, compressed_size, size, method, crc)


def _parse_extra_fields(data: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        tag, length = struct.unpack_from("<2H", data, offset)
        fields.setdefault(tag, data[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return fields


def _apply_zip64_sizes(
    data: bytes, size: int, compressed_size: int, offset: int, disk: int
) -> tuple[int, int, int, int]:
    """Return the four numbers, those that did not fit taken from the zip64 field (section 4.5.3)."""
    position = 0
    numbers = []
    for value, full, width in (
        (size, 0xFFFFFFFF, 8),
        (compressed_size, 0xFFFFFFFF, 8),
        (offset, 0xFFFFFFFF, 8),
        (disk, 0xFFFF, 4),
    ):
        if value == full and position + width <= len(data):
            value = int.from_bytes(data[position : position + width], "little")
            position += width
        numbers.append(value)
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _decode_name(raw_name: bytes, flags: int, unicode_path: bytes) -> str:
    """Decode the name: UTF-8 where it is valid (even without the flag, which many tools omit), else code page 437."""
    if len(unicode_path) > 5 and int.from_bytes(unicode_path[1:5], "little") == zlib.crc32(raw_name):
        return unicode_path[5:].decode("utf-8", "backslashreplace")
    if flags & _UTF8_FLAG:
        return raw_name.decode("utf-8", "backslashreplace")
    try:
        return raw_name.decode("utf-8")
    except UnicodeDecodeError:
        return raw_name.decode("cp437")
