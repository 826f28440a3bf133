"""The files of a folder, and where its images are."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mvl_assets.errors import MvlError
from mvl_assets.lake import external_table
from mvl_assets.readers.files import NON_DATA_FILES

MAX_FILES = 500_000
"""Files that are listed; a folder with more is judged by these."""

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".heic", ".jp2")
)

SPLIT_NAMES = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "minival", "testmini", "eval")
)


@dataclass(slots=True)
class Listing:
    """The visible files below `root`, relative to it, and the folders that are Lance tables."""

    root: Path
    files: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    is_complete: bool = True
    image_dirs_by_name: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    image_paths_by_stem: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def count_suffixes(self) -> Counter[str]:
        """Return how many files have which ending."""
        return Counter(PurePosixPath(name).suffix.lower() or "(none)" for name in self.files)


def list_folder(path: Path) -> Listing:
    """List a folder; of a file or a Lance table, the place where it is and it alone.

    Raises:
        MvlError: There is no such path.
    """
    # Without `..`, but with the links that it goes through: a path that can be read in the source's file.
    path = Path(os.path.normpath(path.expanduser().absolute()))
    if not path.exists():
        raise MvlError(f"there is no {path}", hint="name the folder of the source's files, or one of the files")
    if path.is_file() or external_table.is_table(path):
        listing = list_folder(path.parent) if path.is_file() else Listing(path.parent)
        listing.files = [path.name] if path.is_file() else []
        listing.tables = [] if path.is_file() else [path.name]
        return listing
    listing = Listing(path)
    for folder, folder_names, file_names in os.walk(path):
        folder_names.sort()
        listing.tables += [
            (Path(folder) / name).relative_to(path).as_posix()
            for name in folder_names
            if external_table.is_table(Path(folder) / name)
        ]
        folder_names[:] = [
            name for name in folder_names if name[0] != "." and not external_table.is_table(Path(folder) / name)
        ]
        prefix = "" if Path(folder) == path else f"{Path(folder).relative_to(path).as_posix()}/"
        for name in sorted(file_names):
            if name[0] != "." and name not in NON_DATA_FILES and name.isprintable():
                _add_file(listing, prefix, name)
        if len(listing.files) >= MAX_FILES:
            listing.is_complete = False
            break
    return listing


def _add_file(listing: Listing, prefix: str, name: str) -> None:
    listing.files.append(prefix + name)
    stem, dot, suffix = name.rpartition(".")
    if dot + suffix.lower() in IMAGE_SUFFIXES:
        listing.image_dirs_by_name[name].append(prefix.removesuffix("/"))
        listing.image_paths_by_stem[stem].append(prefix + name)
