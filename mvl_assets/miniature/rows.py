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
    return RawFile(renamed, file.data[: len(file.data) * 2 // 5])
