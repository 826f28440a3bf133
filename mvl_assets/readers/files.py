"""Which files a source has, and the pictures and videos its rows name. A name never leads out of the source's folder.

Belongs here: looking files up below the root. Does not: what is in them.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from mvl_assets.errors import SourceError
from mvl_assets.readers.rows import RowError
from mvl_assets.readers.sample import Picture, Video

NOT_DATA = frozenset({"MINIATURE.json", "dataset_infos.json", "dataset_info.json"})
"""Files that describe a folder: the mark of a drawn miniature, and the Hugging Face hub's."""


@dataclass(frozen=True, slots=True)
class PackedPicture(Picture):
    """A picture inside a zip archive (`path`), under the member's name; read when it is wanted."""

    member: str = ""

    def read(self, limit: int = 256 << 20) -> bytes:
        assert self.path is not None
        try:
            with _archive(self.path).open(self.member) as stream:
                data = stream.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            raise OSError(f"{self.name} cannot be unpacked: {error}") from error
        if len(data) > limit:
            raise ValueError(f"{self.name} is larger than {limit} bytes")
        return data


def files_below(source: str, root: Path, *patterns: str) -> list[Path]:
    """The source's data files in sorted order. Raises `SourceError` when there is none."""
    matches = {p for pattern in patterns for p in root.glob(pattern)}
    found = sorted(p for p in matches if p.name not in NOT_DATA and p.is_file())
    if not found:
        wanted = " or ".join(patterns)
        raise SourceError(source, f"no {wanted} in {root}", hint="put the source's files there, in its native format")
    return found


def relative(root: Path, path: Path) -> str:
    """The file's name as rows and rejects carry it: relative to the root, always valid UTF-8."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def picture_at(root: Path, name: object, folders: Sequence[str] = ("", "images")) -> Picture:
    """The picture file called `name` in one of `folders` of the root.

    Raises `RowError`: `bad_path`, `outside_root` (also through a symlink), `missing_picture`.
    """
    path = find(root, name, folders)
    if path is None:
        raise RowError("missing_picture", f"{_short(name)} is not there")
    return Picture(str(name), path=path)


def zipped_picture_at(root: Path, name: object) -> Picture:
    """Like `picture_at`; a picture whose top folder is missing is looked for in `<top folder>.zip`."""
    path = find(root, name, ("", "images"))
    if path is not None:
        return Picture(str(name), path=path)
    top, _, rest = str(name).partition("/")
    archive = find(root, f"{top}.zip", ("", "images")) if rest else None
    if archive is None:
        parts = sorted(p.name for p in root.glob(f"{_plain(top)}.z*")) if rest else []
        also = f"; join the parts {parts[0]}, ... to {top}.zip first" if parts else ""
        raise RowError("missing_picture", f"{_short(name)} is not there{also}")
    try:
        members = _archive(archive).NameToInfo
    except (zipfile.BadZipFile, OSError) as error:
        raise RowError("missing_picture", f"{archive.name} cannot be opened: {error}") from error
    for member in (str(name), rest):
        if member in members:
            return PackedPicture(str(name), path=archive, member=member)
    raise RowError("missing_picture", f"{_short(name)} is not in {archive.name}")


def video_at(root: Path, name: object, folders: Sequence[str]) -> Video:
    """The video file called `name`. Raises `RowError`: `bad_path`, `outside_root`, `missing_video`."""
    path = find(root, name, folders)
    if path is None:
        raise RowError("missing_video", f"{_short(name)} is not there")
    return Video(str(name), path)


def find(root: Path, name: object, folders: Sequence[str]) -> Path | None:
    """The regular file `name` below `root/<folder>` for the first folder that has it."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise RowError("bad_path", f"{_short(name)} is no file name")
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or parts[:1] == ("/",) or (parts and len(parts[0]) == 2 and parts[0][1] == ":"):
        raise RowError("outside_root", f"{_short(name)} leads out of the source's folder")
    for spelled in _spellings(name):
        for folder in folders:
            path = root / folder / spelled
            try:
                if path.is_file():
                    if not path.resolve().is_relative_to(_resolved(root)):
                        raise RowError("outside_root", f"{_short(name)} is a link out of the source's folder")
                    return path
            except (OSError, UnicodeError) as error:
                raise RowError("bad_path", f"{_short(name)}: {type(error).__name__}") from error
    return None


def _spellings(name: str) -> tuple[str, ...]:
    """Some zips (Vision-FLAN's) hold non-ASCII names with `#Uxxxx` for every such character."""
    if name.isascii():
        return (name,)
    return (name, "".join(c if c.isascii() else f"#U{ord(c):04x}" for c in name))


def _short(name: object) -> str:
    return repr(name)[:200].encode("utf-8", "backslashreplace").decode()


def _plain(text: str) -> str:
    """`text` without what a glob would take as a pattern."""
    return "".join("?" if c in "*?[]" else c for c in text)


@lru_cache(maxsize=64)
def _resolved(root: Path) -> Path:
    return root.resolve()


@lru_cache(maxsize=8)
def _opened(archive: Path, size: int, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)


def _archive(path: Path) -> zipfile.ZipFile:
    state = path.stat()
    return _opened(path, state.st_size, state.st_mtime_ns)
