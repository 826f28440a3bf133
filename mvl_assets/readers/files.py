"""Finds a source's data files, and the images and videos its rows name: as files, or in archives.

A name never leads out of the source's folder; but a folder that images or videos are looked for in may be a link, which
only who set up the source can have made.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from mvl_assets.common.natural_sort import natural_sort_key
from mvl_assets.common.pick_evenly import pick_evenly
from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import SourceError
from mvl_assets.readers.archives.find import find_member, list_members
from mvl_assets.readers.archives.member import ArchiveMember
from mvl_assets.readers.parsers.embedded_bytes import EmbeddedBytes
from mvl_assets.readers.rows import is_utf8_encodable
from mvl_assets.readers.sample import EncodedImage, FrameFolder, Video

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

DEMO_MARKER_FILE = "DEMO_DATA.json"
"""Marks a folder that `mvl demo-data` wrote."""

DEMO_TRUTH_FILE = "DEMO_TRUTH.jsonl"
"""What is true of the drawings in such a folder."""

NON_DATA_FILES = frozenset({DEMO_MARKER_FILE, DEMO_TRUTH_FILE, "dataset_infos.json", "dataset_info.json"})
"""Files that describe a folder: the marker of demo data, and the Hugging Face hub's."""

NATIVE_FILES_HINT = "put the source's files there, in its native format"
"""What to do about a folder without data files, for callers that cannot say more."""

FRAMES_PER_SECOND = 2.0
MAX_FRAMES = 32
"""How folders of frames were cut (the trainer of LLaVA-VL/LLaVA-NeXT, `main.py`, where a path holds `shareVideoGPTV`),
and how many of a video are taken, as of all videos (arXiv 2412.05237 §4)."""

VIDEO_SUFFIXES = ("", ".mp4", ".mkv", ".webm", ".avi", ".mov", ".MP4")
"""What may follow an id that names a video, in order of preference."""

_FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True)
class ArchivedImage(EncodedImage):
    """An image inside an archive, read on demand. `path` is the archive's file."""

    member: ArchiveMember | None = None

    def read(self, max_bytes: int = 256 << 20) -> bytes:
        assert self.member is not None
        return self.member.read(max_bytes)

    def estimate_bytes(self) -> int:
        assert self.member is not None
        return self.member.entry.size


@dataclass(frozen=True, slots=True)
class EmbeddedImage(EncodedImage):
    """An image in a cell of a Parquet file, read on demand."""

    cell: EmbeddedBytes | None = None

    def read(self, max_bytes: int = 256 << 20) -> bytes:
        assert self.cell is not None
        buffer = self.cell.read()
        if buffer.size > max_bytes:
            raise ValueError(f"{self.name} is larger than {max_bytes} bytes")
        data: bytes = buffer.to_pybytes()
        return data

    def estimate_bytes(self) -> int:
        assert self.cell is not None
        return self.cell.expected_bytes


@dataclass(frozen=True, slots=True)
class ArchivedVideo(Video):
    """A video inside an archive, read in place. `path` is the archive's file."""

    member: ArchiveMember | None = None

    @contextmanager
    def open_file(self) -> Iterator[Path | BinaryIO]:
        assert self.member is not None
        with self.member.open_seekable() as stream:
            yield stream


def is_demo_source(source_dir: Path) -> bool:
    """Return whether the folder itself (not what it links to) holds complete demo data."""
    return not source_dir.is_symlink() and (source_dir / DEMO_MARKER_FILE).is_file()


def list_data_files(source: str, root: Path, *patterns: str) -> list[Path]:
    """Return the source's data files in sorted order.

    Args:
        source: Slug of the source, for the error.
        root: Folder of the source.
        patterns: Globs below the root.

    Raises:
        SourceError: No file matches, or a folder cannot be read.
    """
    if any("**" in pattern for pattern in patterns):
        _check_readable(source, root)
    matches = {p for pattern in patterns for p in root.glob(pattern)}
    paths = sorted(p for p in matches if p.name not in NON_DATA_FILES and not p.name.startswith("._") and p.is_file())
    if not paths:
        pattern_text = " or ".join(patterns)
        raise SourceError(source, f"no {pattern_text} in {root}", hint=NATIVE_FILES_HINT)
    return paths


def list_source_files(source: SourceSpec, root: Path, *patterns: str) -> list[Path]:
    """Return the source's data files among those of its repository, as `list_data_files`.

    The folder may be a copy of the whole repository, of which the catalog names the files of this source, or its folder
    (`config`). Where none of these is there, all files count: the folder then holds this source alone.
    """
    paths = list_data_files(source.slug, root, *patterns)
    if source.hub is None:
        return paths
    declared_paths = [p for p in paths if _matches_any(format_relative_path(root, p), source.hub.files)]
    if declared_paths or source.hub.config is None:
        return declared_paths or paths
    folders = {p: p.relative_to(root).parts[0] for p in paths if p.parent != root}
    if source.hub.config not in folders.values():
        return paths
    return [p for p in paths if folders.get(p, source.hub.config) == source.hub.config]


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_readable(source: str, root: Path) -> None:
    """Raise for a folder that may not be read: `glob` skips it, and its rows would count as withdrawn."""

    def raise_source_error(error: OSError) -> None:
        message = f"cannot read the folder {error.filename}: {error.strerror}"
        raise SourceError(source, message, hint="let this user read everything below the source's folder")

    for _ in os.walk(root, onerror=raise_source_error):
        pass


def format_relative_path(root: Path, path: Path) -> str:
    """Return the file's name as rows and rejects carry it: relative to the root, always valid UTF-8."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def resolve_image(root: Path, name: object, folders: Sequence[str] = ("", "images")) -> EncodedImage:
    """Return the image called `name`: a file, or a member of an archive on the way to it.

    Args:
        root: Folder of the source, which no name leads out of.
        name: Path as a row gives it.
        folders: Folders of the root to look in.

    Raises:
        RejectError: `bad_path`, `outside_root` (also through a symlink), `missing_image`; what is wrong with the
            archive that should hold it (`broken_archive`, `archive_bomb`) or with the member (`unsafe_member`,
            `ambiguous_member`, `encrypted_member`, `unsupported_member`).
    """
    path = resolve_file(root, name, folders)
    if path is not None:
        return EncodedImage(str(name), path=path)
    member = find_member(root, _list_candidate_paths(str(_to_relative_name(root, name)), folders))
    if member is None:
        raise RejectError("missing_image", f"{_format_name(name)} is not there")
    return ArchivedImage(str(name), path=member.paths[0], member=member)


def resolve_video(root: Path, name: object, folders: Sequence[str]) -> Video:
    """Return the video called `name`: a file, an archive's member, or a folder of frames in either (`FrameFolder`).

    Raises:
        RejectError: As `resolve_image`, with `missing_video`.
    """
    path = resolve_file(root, name, folders)
    if path is not None:
        return Video(str(name), path)
    folder = _resolve_path(root, name, folders, Path.is_dir)
    if folder is not None:
        frame_paths = sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in _FRAME_SUFFIXES and p.name[:2] != "._"),
            key=lambda p: natural_sort_key(p.name),
        )
        return _build_frame_folder(
            str(name), folder, [EncodedImage(p.name, path=p) for p in frame_paths if _is_inside(root, folders, p)]
        )
    candidate_paths = _list_candidate_paths(str(_to_relative_name(root, name)), folders)
    members = [
        m for m in list_members(root, candidate_paths) if PurePosixPath(m.entry.name).suffix.lower() in _FRAME_SUFFIXES
    ]
    if members:
        images = [ArchivedImage(m.entry.name, path=m.paths[0], member=m) for m in members]
        return _build_frame_folder(str(name), members[0].paths[0], images)
    member = find_member(root, candidate_paths)
    if member is None:
        raise RejectError("missing_video", f"{_format_name(name)} is not there")
    return ArchivedVideo(str(name), member.paths[0], member)


def resolve_video_by_id(root: Path, video_id: object, folders: Sequence[str]) -> Video:
    """Return the video called by its id, with one of `VIDEO_SUFFIXES`. Raises `RejectError` as `resolve_video`."""
    names = (
        [f"{video_id}{suffix}" for suffix in VIDEO_SUFFIXES] if isinstance(video_id, str) and video_id else [video_id]
    )
    for name in names:
        path = resolve_file(root, name, folders)
        if path is not None:
            return Video(str(name), path)
    member = find_member(
        root, [candidate_path for name in names for candidate_path in _list_candidate_paths(str(name), folders)]
    )
    if member is None:
        raise RejectError("missing_video", f"there is no video called {_format_name(video_id)}")
    return ArchivedVideo(PurePosixPath(member.entry.name).name, member.paths[0], member)


def resolve_file(root: Path, name: object, folders: Sequence[str]) -> Path | None:
    """Return the regular file `name` below `root/<folder>` for the first folder that has it, else None.

    Raises:
        RejectError: `bad_path`, `outside_root`.
    """
    return _resolve_path(root, name, folders, Path.is_file)


def _resolve_path(root: Path, name: object, folders: Sequence[str], exists: Callable[[Path], bool]) -> Path | None:
    if not isinstance(name, str) or not name or "\0" in name or not is_utf8_encodable(name):
        raise RejectError("bad_path", f"{_format_name(name)} is not a file name")
    name = str(_to_relative_name(root, name))
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or parts[:1] == ("/",) or (parts and len(parts[0]) == 2 and parts[0][1] == ":"):
        raise RejectError("outside_root", f"{_format_name(name)} leads out of the source's folder")
    for variant in _list_name_variants(name):
        for folder in folders:
            path = root / folder / variant
            try:
                if exists(path):
                    if not _is_inside(root, folders, path):
                        raise RejectError("outside_root", f"{_format_name(name)} is a link out of the source's folder")
                    return path
            except (OSError, UnicodeError) as error:
                raise RejectError("bad_path", f"{_format_name(name)}: {type(error).__name__}") from error
    return None


def _build_frame_folder(name: str, folder: Path, images: Sequence[EncodedImage]) -> FrameFolder:
    """Take at most `MAX_FRAMES` of the images, evenly spread from the first to the last."""
    if not images:
        raise RejectError("missing_video", f"the folder {_format_name(name)} holds no frames")
    return FrameFolder(
        name, folder, tuple((n / FRAMES_PER_SECOND, images[n]) for n in pick_evenly(len(images), MAX_FRAMES))
    )


def _list_candidate_paths(name: str, folders: Sequence[str]) -> list[str]:
    """List the paths relative to the root where `name` may be."""
    return [f"{folder}/{variant}" if folder else variant for variant in _list_name_variants(name) for folder in folders]


def _list_name_variants(name: str) -> tuple[str, ...]:
    """List the ways in which a name may be written on disk.

    As it is, with slashes for backslashes, with `#Uxxxx` per non-ASCII character (Vision-FLAN), and with accents as
    characters of their own or not (macOS writes the one, most others the other; Unicode's NFD and NFC).
    """
    variants = [name, name.replace("\\", "/")]
    if not name.isascii():
        variants.append("".join(c if c.isascii() else f"#U{ord(c):04x}" for c in name))
        variants += [unicodedata.normalize(form, name.replace("\\", "/")) for form in ("NFC", "NFD")]
    return tuple(dict.fromkeys(variants))


def _format_name(name: object) -> str:
    return repr(name)[:200].encode("utf-8", "backslashreplace").decode()


def _to_relative_name(root: Path, name: object) -> object:
    """Return an absolute path inside the root relative to it, anything else as it is."""
    if not isinstance(name, str) or name[:1] != "/":
        return name
    absolute_path = PurePosixPath(name)
    base = next(
        (base for base in (root.absolute(), *_resolve_roots(root, ())) if absolute_path.is_relative_to(base)), "/"
    )
    return name if base == "/" else absolute_path.relative_to(base).as_posix()


def _is_inside(root: Path, folders: Sequence[str], path: Path) -> bool:
    real_path = path.resolve()
    return any(real_path.is_relative_to(base) for base in _resolve_roots(root, tuple(folders)))


@lru_cache(maxsize=64)
def _resolve_roots(root: Path, folders: tuple[str, ...]) -> tuple[Path, ...]:
    """Return where the root is, and the folders in it that are links."""
    real_root = root.resolve()
    linked_folders = dict.fromkeys((root / f).resolve() for f in folders if f and (root / f).is_dir())
    return real_root, *(folder for folder in linked_folders if not folder.is_relative_to(real_root))
