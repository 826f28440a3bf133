"""Which files a source has, and the pictures and videos its rows name: as files, or in the archives they come in.

A name never leads out of the source's folder. Belongs here: looking things up below the root. Does not: what is in
them, and how archives are read (`archives`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mvl_assets.common.natural_sort import natural
from mvl_assets.errors import SourceError
from mvl_assets.readers.archives.find import member_at, members_below
from mvl_assets.readers.archives.member import Member
from mvl_assets.readers.rows import RowError, is_text
from mvl_assets.readers.sample import FrameFolder, Picture, Video

NOT_DATA = frozenset({"MINIATURE.json", "dataset_infos.json", "dataset_info.json"})
"""Files that describe a folder: the mark of a drawn miniature, and the Hugging Face hub's."""

FRAMES_A_SECOND = 2.0
MOST_FRAMES = 32
"""How folders of frames were cut (the trainer of LLaVA-VL/LLaVA-NeXT, `train.py`, where a path holds `shareVideoGPTV`),
and how many of a video are taken, as of all videos (arXiv 2412.05237 §4)."""

VIDEO_ENDINGS = ("", ".mp4", ".mkv", ".webm", ".avi", ".mov", ".MP4")
"""What may follow an id that names a video, in order of preference."""

_FRAMES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True)
class PackedPicture(Picture):
    """A picture inside an archive, read when it is wanted. `path` is the archive's file."""

    member: Member | None = None

    def read(self, limit: int = 256 << 20) -> bytes:
        assert self.member is not None
        return self.member.read(limit)


@dataclass(frozen=True, slots=True)
class PackedVideo(Video):
    """A video inside an archive, read where it lies. `path` is the archive's file."""

    member: Member | None = None

    @contextmanager
    def opened(self) -> Iterator[Path | BinaryIO]:
        assert self.member is not None
        with self.member.seekable() as stream:
            yield stream


def files_below(source: str, root: Path, *patterns: str) -> list[Path]:
    """The source's data files in sorted order. Raises `SourceError` when there is none, or a folder cannot be read."""
    if any("**" in pattern for pattern in patterns):
        _check_readable(source, root)
    matches = {p for pattern in patterns for p in root.glob(pattern)}
    found = sorted(p for p in matches if p.name not in NOT_DATA and not p.name.startswith("._") and p.is_file())
    if not found:
        wanted = " or ".join(patterns)
        raise SourceError(source, f"no {wanted} in {root}", hint="put the source's files there, in its native format")
    return found


def _check_readable(source: str, root: Path) -> None:
    """`glob` passes over folders that it may not read: their rows would count as withdrawn."""

    def refuse(error: OSError) -> None:
        why = f"cannot read the folder {error.filename}: {error.strerror}"
        raise SourceError(source, why, hint="let this user read everything below the source's folder")

    for _ in os.walk(root, onerror=refuse):
        pass


def relative(root: Path, path: Path) -> str:
    """The file's name as rows and rejects carry it: relative to the root, always valid UTF-8."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def picture_at(root: Path, name: object, folders: Sequence[str] = ("", "images")) -> Picture:
    """The picture called `name` in one of `folders` of the root: a file, or a member of an archive on the way to it.

    Raises `RowError`: `bad_path`, `outside_root` (also through a symlink), `missing_picture`; what is wrong with the
    archive that should hold it (`broken_archive`, `archive_bomb`) or with the member (`unsafe_member`,
    `ambiguous_member`, `encrypted_member`, `unsupported_member`).
    """
    path = find(root, name, folders)
    if path is not None:
        return Picture(str(name), path=path)
    member = member_at(root, _places(str(name), folders))
    if member is None:
        raise RowError("missing_picture", f"{_short(name)} is not there")
    return PackedPicture(str(name), path=member.paths[0], member=member)


def video_at(root: Path, name: object, folders: Sequence[str]) -> Video:
    """The video called `name`: a file, a member of an archive, or a folder of frames in either (`FrameFolder`).

    Raises `RowError` as `picture_at` does, with `missing_video`.
    """
    path = find(root, name, folders)
    if path is not None:
        return Video(str(name), path)
    folder = _found(root, name, folders, Path.is_dir)
    if folder is not None:
        inside = sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in _FRAMES and p.name[:2] != "._"),
            key=lambda p: natural(p.name),
        )
        return _frame_folder(str(name), folder, [Picture(p.name, path=p) for p in inside if _is_inside(root, p)])
    places = _places(str(name), folders)
    members = [m for m in members_below(root, places) if PurePosixPath(m.entry.name).suffix.lower() in _FRAMES]
    if members:
        pictures = [PackedPicture(m.entry.name, path=m.paths[0], member=m) for m in members]
        return _frame_folder(str(name), members[0].paths[0], pictures)
    member = member_at(root, places)
    if member is None:
        raise RowError("missing_video", f"{_short(name)} is not there")
    return PackedVideo(str(name), member.paths[0], member)


def video_by_id(root: Path, own_id: object, folders: Sequence[str]) -> Video:
    """The video called by its id, with one of `VIDEO_ENDINGS`. Raises `RowError` as `video_at` does."""
    names = [f"{own_id}{ending}" for ending in VIDEO_ENDINGS] if isinstance(own_id, str) and own_id else [own_id]
    for name in names:
        path = find(root, name, folders)
        if path is not None:
            return Video(str(name), path)
    member = member_at(root, [place for name in names for place in _places(str(name), folders)])
    if member is None:
        raise RowError("missing_video", f"there is no video called {_short(own_id)}")
    return PackedVideo(PurePosixPath(member.entry.name).name, member.paths[0], member)


def find(root: Path, name: object, folders: Sequence[str]) -> Path | None:
    """The regular file `name` below `root/<folder>` for the first folder that has it."""
    return _found(root, name, folders, Path.is_file)


def _found(root: Path, name: object, folders: Sequence[str], is_there: Callable[[Path], bool]) -> Path | None:
    if not isinstance(name, str) or not name or "\0" in name or not is_text(name):
        raise RowError("bad_path", f"{_short(name)} is no file name")
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or parts[:1] == ("/",) or (parts and len(parts[0]) == 2 and parts[0][1] == ":"):
        raise RowError("outside_root", f"{_short(name)} leads out of the source's folder")
    for spelled in _spellings(name):
        for folder in folders:
            path = root / folder / spelled
            try:
                if is_there(path):
                    if not _is_inside(root, path):
                        raise RowError("outside_root", f"{_short(name)} is a link out of the source's folder")
                    return path
            except (OSError, UnicodeError) as error:
                raise RowError("bad_path", f"{_short(name)}: {type(error).__name__}") from error
    return None


def _frame_folder(name: str, folder: Path, pictures: Sequence[Picture]) -> FrameFolder:
    """At most `MOST_FRAMES` of the pictures, evenly spread from the first to the last."""
    if not pictures:
        raise RowError("missing_video", f"the folder {_short(name)} holds no frames")
    last, most = len(pictures) - 1, min(len(pictures), MOST_FRAMES)
    chosen = [round(n * last / max(1, most - 1)) for n in range(most)]
    return FrameFolder(name, folder, tuple((n / FRAMES_A_SECOND, pictures[n]) for n in chosen))


def _places(name: str, folders: Sequence[str]) -> list[str]:
    """Where to look for `name`, relative to the root."""
    return [f"{folder}/{spelled}" if folder else spelled for spelled in _spellings(name) for folder in folders]


def _spellings(name: str) -> tuple[str, ...]:
    """As it is, with the slashes of other systems, and with `#Uxxxx` for every non-ASCII character as in some zips
    (Vision-FLAN's)."""
    coded = "".join(c if c.isascii() else f"#U{ord(c):04x}" for c in name)
    return tuple(dict.fromkeys((name, name.replace("\\", "/"), coded)))


def _short(name: object) -> str:
    return repr(name)[:200].encode("utf-8", "backslashreplace").decode()


def _is_inside(root: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(_resolved(root))


@lru_cache(maxsize=64)
def _resolved(root: Path) -> Path:
    return root.resolve()
