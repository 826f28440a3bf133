"""Finds which field of a record names its video, and where the files are."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from mvl_assets.readers.files import VIDEO_SUFFIXES
from mvl_assets.readers.sniffing.fields import Fields
from mvl_assets.readers.sniffing.listing import Listing

SEARCHED_FOLDERS = ("", "videos")
MIN_SHARE = 0.5
"""Of a field's values that must name a file: in some sets many videos have been withdrawn."""


def infer_video_field(fields: Fields, listing: Listing) -> dict[str, Any]:
    """Return the keys of a field map that say where a record's video is; none when no field names one."""
    suffixes = {suffix for suffix in VIDEO_SUFFIXES if suffix}
    paths_by_name: dict[str, str] = {}
    for file in listing.files:
        path = PurePosixPath(file)
        if path.suffix in suffixes:
            paths_by_name[path.name] = paths_by_name[path.stem] = file
    if not paths_by_name:
        return {}
    for field, values in fields.values.items():
        names = [value for value in values if isinstance(value, str) and value]
        folders = [
            _get_folder(paths_by_name[base], name)
            for name in names
            if (base := PurePosixPath(name).name) in paths_by_name
        ]
        if names and len(folders) >= MIN_SHARE * len(values):
            guess: dict[str, Any] = {"video": f"{{{fields.take(field)}}}"}
            others = sorted({folder for folder in folders if folder not in SEARCHED_FOLDERS})
            return guess | ({"image_folders": others} if others else {})
    return {}


def _get_folder(path: str, name: str) -> str:
    """Return the folder in which `name`, perhaps with folders and without its ending, is the file `path`."""
    depth = len(PurePosixPath(name).parts)
    return "/".join(PurePosixPath(path).parts[:-depth])
