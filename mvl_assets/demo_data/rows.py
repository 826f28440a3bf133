"""Raw rows between what was drawn and the files of a native format, and the ways in which a few of them are broken.

Belongs here: `Row`, and turning content into rows with known faults. Not here: file formats (`formats`), drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

# What a download that went wrong often leaves in place of a picture.
ERROR_PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>\n"


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file named by a row. `data` None: the row names it, the disk does not have it."""

    name: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row before it is written. `turns` are (question, answer) without picture markers.

    `fault` names the damage that the format's writer has to do itself; damage of files is done already.
    """

    key: str
    turns: tuple[tuple[str, str], ...]
    pictures: tuple[RawFile, ...] = ()
    video: RawFile | None = None
    fault: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


def damage(row: Row, fault: str) -> Row:
    """The row with `fault` in it, which is also the error class that ingest gives it.

    A damaged file gets a name of its own, so rows that share the picture stay good.
    """
    if fault in ("truncated_picture", "not_a_picture", "missing_picture"):
        first, *rest = row.pictures
        return replace(row, fault=fault, pictures=(_spoil(first, fault, row.key), *rest))
    if fault in ("truncated_video", "missing_video"):
        assert row.video is not None
        return replace(row, fault=fault, video=_spoil(row.video, fault, row.key))
    return replace(row, fault=fault)


def _spoil(file: RawFile, fault: str, key: str) -> RawFile:
    name = PurePosixPath(file.name)
    renamed = str(name.with_name(f"{name.stem}_{key}{name.suffix}"))
    assert file.data is not None
    if fault.startswith("missing"):
        return RawFile(renamed, None)
    if fault == "not_a_picture":
        return RawFile(renamed, ERROR_PAGE)
    at = len(file.data) * 2 // 5
    return RawFile(renamed, file.data[: _inside_pixels(file.data, at) if fault == "truncated_picture" else at])


def _inside_pixels(data: bytes, at: int) -> int:
    """`at`, or later: cut before its pixels begin, a small PNG or JPEG would be no picture at all."""
    if data.startswith(b"\x89PNG"):
        begin = data.find(b"IDAT")
        end = begin + 4 + int.from_bytes(data[begin - 4 : begin])
    else:
        begin, end = data.find(b"\xff\xda"), len(data)
    return at if at > begin + 16 else (begin + end) // 2
