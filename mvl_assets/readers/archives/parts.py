"""Archives as they lie in a folder: whole, or in parts that together are one stream of bytes.

train.tar   videos_1.tar.gz   nlvr2.zip                    whole
x.zip.001 x.zip.002    x.tar.gz.part-aa x.tar.gz.part-ab   cut by `split`
allava.tar.gz_part1 ... allava.tar.gz_part12               (nyu-visionx/Cambrian-10M; numbers without zeros)
dreamsim_split.z01 dreamsim_split.zip                      zip's own parts, the last of them `.zip`
                                                           (lmms-lab/M4-Instruct-Data)
image_chunks/images_0.zip ... image_chunks/images_9.zip    each whole, of the folder `images` beside it
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

from mvl_assets.common.natural_sort import natural

_WHOLE = r"\.(?:tar|tgz|tbz2?|txz|tzst|zip|tar\.(?:gz|bz2|xz|zst))"
_IS_WHOLE = re.compile(rf"(?P<stem>.+){_WHOLE}", re.IGNORECASE)
_IS_PART = re.compile(
    rf"(?P<whole>(?P<stem>.+){_WHOLE})[._-](?:part)?[._-]?(?P<number>\d{{1,4}}|[a-z]{{2}})", re.IGNORECASE
)
_IS_DISK = re.compile(r"(?P<stem>.+)\.z(?P<number>\d{2,3})", re.IGNORECASE)
_ANY = re.compile(r"\.(?:t|z)", re.IGNORECASE)  # keeps the look at each file's kind from a million pictures

CHUNKS = "image_chunks"
"""A folder of archives that counts as the one it lies in."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of a folder. `name` and `stem` are without the part's number; `missing` says what is not there."""

    name: str
    stem: str
    paths: tuple[Path, ...]
    missing: str | None = None

    def state(self) -> tuple[tuple[str, int, int], ...]:
        """(name, size, time of change) of every part: another state is another archive."""
        found = [(path.name, path.stat()) for path in self.paths]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def archives_in(folder: Path) -> tuple[Archive, ...]:
    """The archives that lie in a folder itself, in natural order of their names, then those in its `CHUNKS`."""
    try:
        changed = folder.stat().st_mtime_ns
        found = _listed(folder, changed)
    except OSError:
        return ()
    return found if folder.name == CHUNKS else found + archives_in(folder / CHUNKS)


@lru_cache(maxsize=256)
def _listed(folder: Path, changed: int) -> tuple[Archive, ...]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if _ANY.search(e.name) and not e.name.startswith(".") and e.is_file()]
    whole = {name: found["stem"] for name in names if (found := _IS_WHOLE.fullmatch(name))}
    cut: dict[tuple[str, str], dict[str, str]] = {}
    disks: dict[str, dict[str, str]] = {}
    for name in names:
        if name in whole:
            continue
        if found := _IS_PART.fullmatch(name):
            cut.setdefault((found["whole"], found["stem"]), {})[found["number"].lower()] = name
        elif found := _IS_DISK.fullmatch(name):
            disks.setdefault(found["stem"], {})[found["number"]] = name
    archives = {name: Archive(name, stem, (folder / name,)) for name, stem in whole.items()}
    for (name, stem), numbered in cut.items():
        if name not in archives:  # else somebody has joined them already
            archives[name] = _of_parts(folder, name, stem, numbered, ())
    for stem, numbered in disks.items():
        last = next((name for name in whole if name.lower() == f"{stem}.zip".lower()), None)
        archives[last or f"{stem}.zip"] = _of_parts(folder, last or f"{stem}.zip", stem, numbered, (last,))
    return tuple(sorted(archives.values(), key=lambda archive: natural(archive.name)))


def _of_parts(folder: Path, name: str, stem: str, numbered: dict[str, str], last: Sequence[str | None]) -> Archive:
    order = sorted(numbered, key=natural)
    numbers = [int(n) if n.isdecimal() else 26 * (ord(n[0]) - 97) + ord(n[1]) - 97 for n in order]
    first = numbers[0] if numbers[0] in (0, 1) and order[0].isdecimal() and not last else 1 if last else 0
    missing = None
    if numbers != list(range(first, first + len(numbers))):
        missing = f"its parts are not complete: {', '.join(numbered[n] for n in order[:6])}"
    elif None in last:
        missing = f"its last part {name} is not there"
    files = [numbered[n] for n in order] + [part for part in last if part is not None]
    return Archive(name, stem, tuple(folder / file for file in files), missing)


def opened(paths: Sequence[Path]) -> BinaryIO:
    """The parts as one readable, seekable stream."""
    return paths[0].open("rb") if len(paths) == 1 else io.BufferedReader(_Joined(paths))


def starts_of(paths: Sequence[Path]) -> tuple[list[int], int]:
    """Where each part begins in the joined stream, and how long that is."""
    ends = list(accumulate(path.stat().st_size for path in paths))
    return [0, *ends[:-1]], ends[-1]


class _Sized(io.RawIOBase):
    """A readable stream of known size with a place in it."""

    _size: int
    _at: int

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


class _Joined(_Sized):
    """Files read one after another as if they were one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._starts, self._size = starts_of(paths)
        self._at = 0
        self._number = -1
        self._file: BinaryIO | None = None

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._at >= self._size:
            return 0
        number = bisect.bisect_right(self._starts, self._at) - 1
        if number != self._number or self._file is None:
            self._close_file()
            self._file, self._number = self._paths[number].open("rb"), number
        self._file.seek(self._at - self._starts[number])
        read = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._at += read
        return int(read)

    def close(self) -> None:
        self._close_file()
        super().close()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Window(_Sized):
    """The `size` bytes at `offset` of a stream that it owns, as a file of their own."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream = stream
        self._offset = offset
        self._size = size
        self._at = 0

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        self._stream.seek(self._offset + self._at)
        data = self._stream.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
