"""Raw rows between drawn content and the files of a native format, and the faults of a few of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from mvl_assets.demo_data.drawings.drawing import Drawing

# What a download that went wrong often leaves in place of an image.
ERROR_PAGE = b"404: Not Found\n"


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file that a row names. `data` is None if the file is missing on disk, `drawing` if it shows something else."""

    name: str
    data: bytes | None
    drawing: Drawing | None = None


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row before it is written. `turns` are (question, answer) without image markers.

    `fault` names the damage that the format's writer has to do itself; files are damaged already.
    """

    row_id: str
    turns: tuple[tuple[str, str], ...]
    images: tuple[RawFile, ...] = ()
    video: RawFile | None = None
    fault: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


def apply_fault(row: RawRow, fault: str) -> RawRow:
    """Return the row with `fault` in it, which is also the error class that ingest gives it.

    A damaged file gets its own name, so that rows sharing the image stay valid.
    """
    if fault in ("truncated_image", "not_an_image", "missing_image"):
        first_image, *other_images = row.images
        return replace(row, fault=fault, images=(_damage_file(first_image, fault, row.row_id), *other_images))
    if fault in ("truncated_video", "missing_video"):
        assert row.video is not None
        return replace(row, fault=fault, video=_damage_file(row.video, fault, row.row_id))
    return replace(row, fault=fault)


def _damage_file(file: RawFile, fault: str, row_id: str) -> RawFile:
    name = PurePosixPath(file.name)
    damaged_name = str(name.with_name(f"{name.stem}_{row_id}{name.suffix}"))
    assert file.data is not None
    if fault.startswith("missing"):
        return RawFile(damaged_name, None)
    if fault == "not_an_image":
        return RawFile(damaged_name, ERROR_PAGE)
    cut_offset = len(file.data) * 2 // 5
    return RawFile(
        damaged_name,
        file.data[: _move_cut_into_pixel_data(file.data, cut_offset) if fault == "truncated_image" else cut_offset],
    )


def _move_cut_into_pixel_data(data: bytes, cut_offset: int) -> int:
    """Return `cut_offset`, or a later one: cut before its pixels, a small PNG or JPEG would not be an image at all."""
    if data.startswith(b"\x89PNG"):
        pixel_start = data.find(b"IDAT")
        pixel_end = pixel_start + 4 + int.from_bytes(data[pixel_start - 4 : pixel_start])
    else:
        pixel_start, pixel_end = data.find(b"\xff\xda"), len(data)
    return cut_offset if cut_offset > pixel_start + 16 else (pixel_start + pixel_end) // 2
