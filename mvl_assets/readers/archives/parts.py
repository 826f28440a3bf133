"""The archives of a folder: whole, or in parts that together are one stream of bytes.

train.tar   videos_1.tar.gz   nlvr2.zip                    whole
x.zip.001 x.zip.002    x.tar.gz.part-aa x.tar.gz.part-ab   cut by `split`
allava.tar.gz_part1 ... allava.tar.gz_part12               (nyu-visionx/Cambrian-10M; numbers without zeros)
dreamsim_split.z01 dreamsim_split.zip                      zip's own parts, the last of them `.zip`
                                                           (lmms-lab/M4-Instruct-Data)
image_chunks/images_0.zip ... image_chunks/images_9.zip    each whole, of the folder `images` next to it
                                                           (FreedomIntelligence/ALLaVA-4V)
"""

from __future__ import annotations

import bisect
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from mvl_assets.common.natural_sort import natural_sort_key

_ARCHIVE_SUFFIX = r"\.(?:tar|tgz|tbz2?|txz|tzst|zip|tar\.(?:gz|bz2|xz|zst))"
_WHOLE_ARCHIVE_NAME = re.compile(rf"(?P<stem>.+){_ARCHIVE_SUFFIX}", re.IGNORECASE)
_PART_NAME = re.compile(
    rf"(?P<whole>(?P<stem>.+){_ARCHIVE_SUFFIX})[._-](?:part)?[._-]?(?P<number>\d{{1,4}}|[a-z]{{2}})", re.IGNORECASE
)
_ZIP_DISK_NAME = re.compile(r"(?P<stem>.+)\.z(?P<number>\d{2,3})", re.IGNORECASE)
# Spares a million images the check of each file's kind.
_ARCHIVE_SUFFIX_HINT = re.compile(r"\.(?:t|z)", re.IGNORECASE)

CHUNK_FOLDER = "image_chunks"
"""A folder whose archives count as if they were in its parent."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of a folder.

    Attributes:
        name: File name without the number of a part.
        stem: Name without the suffixes of archives.
        paths: The file, or its parts in order.
        missing_reason: Which parts are missing, None when the archive is complete.
    """

    name: str
    stem: str
    paths: tuple[Path, ...]
    missing_reason: str | None = None

    def compute_fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Return (name, size, mtime) of every part: with another fingerprint it is another archive."""
        stats = [(path.name, path.stat()) for path in self.paths]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def list_archives(folder: Path) -> tuple[Archive, ...]:
    """Return the archives in a folder in natural order of their names, then those in its `CHUNK_FOLDER`."""
    try:
        mtime_ns = folder.stat().st_mtime_ns
        archives = _scan_archives(folder, mtime_ns)
    except OSError:
        return ()
    return archives if folder.name == CHUNK_FOLDER else archives + list_archives(folder / CHUNK_FOLDER)


@lru_cache(maxsize=256)
def _scan_archives(folder: Path, mtime_ns: int) -> tuple[Archive, ...]:
    with os.scandir(folder) as entries:
        names = [
            e.name
            for e in entries
            if _ARCHIVE_SUFFIX_HINT.search(e.name) and not e.name.startswith(".") and e.is_file()
        ]
    stem_by_name = {name: match["stem"] for name in names if (match := _WHOLE_ARCHIVE_NAME.fullmatch(name))}
    split_parts: dict[tuple[str, str], dict[str, str]] = {}
    disks: dict[str, dict[str, str]] = {}
    for name in names:
        if name in stem_by_name:
            continue
        if match := _PART_NAME.fullmatch(name):
            split_parts.setdefault((match["whole"], match["stem"]), {})[match["number"].lower()] = name
        elif match := _ZIP_DISK_NAME.fullmatch(name):
            disks.setdefault(match["stem"], {})[match["number"]] = name
    archives = {name: Archive(name, stem, (folder / name,)) for name, stem in stem_by_name.items()}
    for (name, stem), name_by_number in split_parts.items():
        if name not in archives:  # else the user has joined them already
            archives[name] = _build_multipart_archive(folder, name, stem, name_by_number, ())
    for stem, name_by_number in disks.items():
        last_name = next((name for name in stem_by_name if name.lower() == f"{stem}.zip".lower()), None)
        archives[last_name or f"{stem}.zip"] = _build_multipart_archive(
            folder, last_name or f"{stem}.zip", stem, name_by_number, (last_name,)
        )
    return tuple(sorted(archives.values(), key=lambda archive: natural_sort_key(archive.name)))


def _build_multipart_archive(
    folder: Path, name: str, stem: str, name_by_number: dict[str, str], last_names: Sequence[str | None]
) -> Archive:
    number_texts = sorted(name_by_number, key=natural_sort_key)
    numbers = [int(n) if n.isdecimal() else 26 * (ord(n[0]) - 97) + ord(n[1]) - 97 for n in number_texts]
    first_number = (
        numbers[0]
        if numbers[0] in (0, 1) and number_texts[0].isdecimal() and not last_names
        else 1
        if last_names
        else 0
    )
    missing_reason = None
    if numbers != list(range(first_number, first_number + len(numbers))):
        missing_reason = f"its parts are not complete: {', '.join(name_by_number[n] for n in number_texts[:6])}"
    elif None in last_names:
        missing_reason = f"its last part {name} is not there"
    files = [name_by_number[n] for n in number_texts] + [part for part in last_names if part is not None]
    return Archive(name, stem, tuple(folder / file for file in files), missing_reason)


def open_joined(paths: Sequence[Path]) -> BinaryIO:
    """Open the parts as one readable, seekable stream."""
    return paths[0].open("rb") if len(paths) == 1 else io.BufferedReader(_JoinedFile(paths))


def compute_part_offsets(paths: Sequence[Path]) -> tuple[list[int], int]:
    """Return where each part starts in the joined stream, and its length in bytes."""
    ends = list(accumulate(path.stat().st_size for path in paths))
    return [0, *ends[:-1]], ends[-1]


class _SizedStream(io.RawIOBase):
    """A readable stream of known size with a position in it."""

    _size: int
    _position: int

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


class _JoinedFile(_SizedStream):
    """Files read one after another as if they were one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._part_offsets, self._size = compute_part_offsets(paths)
        self._position = 0
        self._part_number = -1
        self._file: BinaryIO | None = None

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._position >= self._size:
            return 0
        part_number = bisect.bisect_right(self._part_offsets, self._position) - 1
        if part_number != self._part_number or self._file is None:
            self._close_file()
            self._file, self._part_number = self._paths[part_number].open("rb"), part_number
        self._file.seek(self._position - self._part_offsets[part_number])
        n_read = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._position += n_read
        return int(n_read)

    def close(self) -> None:
        self._close_file()
        super().close()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class StreamSlice(_SizedStream):
    """The `size` bytes at `offset` of a stream that it owns, as a file of their own."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream = stream
        self._offset = offset
        self._size = size
        self._position = 0

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        n_bytes = min(len(buffer), self._size - self._position)
        if n_bytes <= 0:
            return 0
        self._stream.seek(self._offset + self._position)
        data = self._stream.read(n_bytes)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
