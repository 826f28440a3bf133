"""The members of a zip, from its central directory (PKWARE APPNOTE.TXT 6.3, sections 4.3 to 4.5).

Walked here and not with `zipfile`, which holds the whole directory in memory and refuses archives in several parts
(`x.z01`, ..., `x.zip`: offsets there count from the begin of a part). `zipfile` unpacks the members (`member`).
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mvl_assets.readers.archives.entry import MAX_MEMBERS, ArchiveError, Entry, is_bomb, named

_END = struct.Struct("<4s4H2LH")
_END64_PLACE = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_MEMBER = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_UTF8, _ENCRYPTED = 1 << 11, 1 | 1 << 6


def walk(stream: BinaryIO, starts: Sequence[int], total: int) -> Iterator[Entry]:
    """The files of a zip of `total` bytes whose parts begin at `starts`; what must not be read has an error.

    Raises `ArchiveError` where the directory cannot be read.
    """
    place = _directory(stream, starts, total)
    at = place.begin
    stream.seek(at)
    members = 0
    while at + _MEMBER.size <= place.end:
        record = stream.read(_MEMBER.size)
        fields = _MEMBER.unpack(record) if len(record) == _MEMBER.size else (b"",)
        if fields[0] != b"PK\1\2":
            raise ArchiveError(f"its directory is damaged at byte {at}")
        variable = stream.read(fields[10] + fields[11] + fields[12])
        at += _MEMBER.size + len(variable)
        members += 1
        if members > MAX_MEMBERS:
            raise ArchiveError(f"it has more than {MAX_MEMBERS} members")
        entry = _entry(fields, variable, place, starts, total)
        if entry is not None:
            yield entry


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where the central directory lies. `shift` is what precedes the zip in its file; None: offsets are per part."""

    begin: int
    end: int
    shift: int | None


def _directory(stream: BinaryIO, starts: Sequence[int], total: int) -> _Directory:
    tail_at = max(0, total - (1 << 16) - _END.size)
    stream.seek(tail_at)
    tail = stream.read(total - tail_at)
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) - found < _END.size:
        raise ArchiveError("it has no zip directory at its end; perhaps it was cut off")
    end = tail_at + found
    _, disk, disk_of_directory, _, _, size, offset, _ = _END.unpack_from(tail, found)
    wide = _end_of_zip64(stream, end, starts)
    if wide is not None:
        end, disk, disk_of_directory, size, offset = wide
    if disk == 0:
        begin, shift = end - size, end - size - offset
    else:
        if disk + 1 != len(starts):
            raise ArchiveError(f"it was written in {disk + 1} parts, of which {len(starts)} are there")
        begin, shift = starts[min(disk_of_directory, disk)] + offset, None
    if begin < 0 or (shift or 0) < 0 or begin + size > end:
        raise ArchiveError("its directory does not lie where it says")
    return _Directory(begin, begin + size, shift)


def _end_of_zip64(stream: BinaryIO, end: int, starts: Sequence[int]) -> tuple[int, int, int, int, int] | None:
    """(place, disk, disk of the directory, size of the directory, its offset) from the zip64 end record, if it has
    one."""
    stream.seek(max(0, end - _END64_PLACE.size))
    located = stream.read(_END64_PLACE.size)
    if len(located) == _END64_PLACE.size and located.startswith(b"PK\6\7"):
        _, disk, offset, _ = _END64_PLACE.unpack(located)
        before = end - _END64_PLACE.size - _END64.size
        for place in (before, starts[min(disk, len(starts) - 1)] + offset):
            stream.seek(max(0, min(place, end)))
            record = stream.read(_END64.size)
            if len(record) == _END64.size and record.startswith(b"PK\6\6"):
                fields = _END64.unpack(record)
                return place, fields[4], fields[5], fields[8], fields[9]
        raise ArchiveError("its zip64 directory cannot be found")
    return None


def _entry(
    fields: Sequence[int], variable: bytes, place: _Directory, starts: Sequence[int], total: int
) -> Entry | None:
    """One record of the directory as a member, None for a folder."""
    _, version, _, flags, method, _, _, crc, packed, size, name_size, extra_size, _, disk, _, mode, offset = fields
    raw = variable[:name_size]
    extra = _extra_fields(variable[name_size : name_size + extra_size])
    size, packed, offset, disk = _wide(extra.get(1, b""), size, packed, offset, disk)
    name = _name(raw, flags, extra.get(0x7075, b""))
    if name.endswith("/"):
        return None
    own, trouble = named(name)
    kind = stat.S_IFMT(mode >> 16) if version >> 8 == 3 else 0
    if kind not in (0, stat.S_IFREG):
        trouble = "it is a symbolic link" if kind == stat.S_IFLNK else "it is no regular file"
    if trouble is not None:
        return Entry(own, error="unsafe_member", note=trouble)
    if flags & _ENCRYPTED:
        return Entry(own, error="encrypted_member", note="it is encrypted")
    if method not in _METHODS:
        return Entry(own, error="unsupported_member", note=f"it is packed by the method {method}")
    if is_bomb(size, packed):
        return Entry(own, error="archive_bomb", note=f"it would unpack from {packed} to {size} bytes")
    first = place.shift if place.shift is not None else starts[disk] if disk < len(starts) else total
    begin = first + offset
    if begin + LOCAL.size + packed > place.begin or (method == zipfile.ZIP_STORED and size != packed):
        return Entry(own, error="broken_archive", note="its data do not lie where the directory says")
    return Entry(own, begin, packed, size, method, crc)


def _extra_fields(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        tag, length = struct.unpack_from("<2H", data, at)
        found.setdefault(tag, data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _wide(data: bytes, size: int, packed: int, offset: int, disk: int) -> tuple[int, int, int, int]:
    """The four numbers, those that did not fit taken from the zip64 field (section 4.5.3)."""
    at = 0
    wide = []
    for value, full, width in (
        (size, 0xFFFFFFFF, 8),
        (packed, 0xFFFFFFFF, 8),
        (offset, 0xFFFFFFFF, 8),
        (disk, 0xFFFF, 4),
    ):
        if value == full and at + width <= len(data):
            value = int.from_bytes(data[at : at + width], "little")
            at += width
        wide.append(value)
    return wide[0], wide[1], wide[2], wide[3]


def _name(raw: bytes, flags: int, unicode_path: bytes) -> str:
    """The name in UTF-8 where it is that (also unsaid, as many tools wrote it), else in code page 437."""
    if len(unicode_path) > 5 and int.from_bytes(unicode_path[1:5], "little") == zlib.crc32(raw):
        return unicode_path[5:].decode("utf-8", "backslashreplace")
    if flags & _UTF8:
        return raw.decode("utf-8", "backslashreplace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")
