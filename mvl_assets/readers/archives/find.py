"""Finds the archive member that a row names.

A row names `coco/train2017/9.jpg`. Archives are looked for next to every folder on that path: `coco.tar`,
`coco/train2017.zip`, `coco_1.tar.gz`, ... Those named after the next folder of the path come first, and their members
may begin with that folder or be below it. Then all other archives there are asked for the path as it is, and last
those named after a later folder of the path for what comes from that folder on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mvl_assets.common.natural_sort import natural_sort_key
from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.archives.entry import ArchiveError, Entry
from mvl_assets.readers.archives.index import ArchiveIndex, open_index
from mvl_assets.readers.archives.member import ArchiveMember
from mvl_assets.readers.archives.parts import Archive, list_archives

RANK_NEXT_FOLDER, RANK_OTHER, RANK_LATER_FOLDER = range(3)
"""What an archive is named after: the next folder of the path, none of its folders, or a later one (the archive's name
then does not account for the folders before that one)."""


class _Candidate(NamedTuple):
    """An archive to look for one of `tails` in; candidates are tried in sorted order."""

    rank: int
    folder_index: int
    order: int
    archive: Archive
    tails: tuple[tuple[str, ...], ...]


def find_member(root: Path, names: Sequence[str]) -> ArchiveMember | None:
    """Return the member that the first of `names` leads to, None when no archive has it.

    Args:
        root: Folder of the source.
        names: Paths relative to the root, in order of preference.

    Raises:
        RejectError: The member must not be read; or it is in none of the archives that can be read but may be in one
            that cannot: one that is named after the next folder of the path, or any other where there is none of these.
    """
    first_failure: tuple[Archive, ArchiveError] | None = None
    named_archives_readable = False
    for candidate in _list_candidates(root, names):
        archive_error: ArchiveError | None
        try:
            index = open_index(root, candidate.archive)
        except ArchiveError as error:
            archive_error = error
        else:
            archive_error = index.read_error
            for name in _iter_member_names(candidate, index):
                entry = index.find(name)
                if entry is not None:
                    return _build_member(root, candidate.archive, index, entry)
        if archive_error is not None and (candidate.rank == RANK_NEXT_FOLDER or not named_archives_readable):
            first_failure = first_failure or (candidate.archive, archive_error)
        named_archives_readable |= candidate.rank == RANK_NEXT_FOLDER and archive_error is None
    if first_failure is not None:
        archive, archive_failure = first_failure
        raise RejectError(
            archive_failure.code,
            f"{names[0]!r} cannot be read from {_format_archive_path(root, archive)}: {archive_failure.message}",
        )
    return None


def list_members(root: Path, names: Sequence[str]) -> list[ArchiveMember]:
    """Return the files in the folder of an archive that the first of `names` leads to, in natural order.

    The list is empty when no archive has the folder. Archives that cannot be opened are passed over.

    Raises:
        RejectError: A member must not be read, or the archive cannot be read to its end, so that files may be missing.
    """
    # A folder is found through any file in it.
    for candidate in _list_candidates(root, [f"{name}/*" for name in names]):
        try:
            index = open_index(root, candidate.archive)
        except ArchiveError:
            continue
        for name in _iter_member_names(candidate, index):
            folder, _, _ = name.rpartition("/")
            entries = index.list_folder(folder) if folder else []
            if entries and index.read_error is not None:
                archive_error = index.read_error
                path = _format_archive_path(root, candidate.archive)
                raise RejectError(
                    archive_error.code, f"{names[0]!r} may not be whole in {path}: {archive_error.message}"
                )
            if entries:
                entries.sort(key=lambda entry: natural_sort_key(entry.name))
                return [_build_member(root, candidate.archive, index, entry) for entry in entries]
    return []


def _build_member(root: Path, archive: Archive, index: ArchiveIndex, entry: Entry) -> ArchiveMember:
    if entry.error is not None:
        raise RejectError(entry.error, f"{_format_archive_path(root, archive)}: {entry.name}: {entry.detail}")
    return ArchiveMember(_format_archive_path(root, archive), index.paths, entry)


def _list_candidates(root: Path, names: Sequence[str]) -> list[_Candidate]:
    """List where to look, in the order of `names` and, for each name, in the natural order of the archives."""
    candidates: list[_Candidate] = []
    for name in names:
        parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        for depth in range(len(parts)):
            subpath = parts[depth:]
            for archive in list_archives(root.joinpath(*parts[:depth])):
                matching_indices = [n for n, part in enumerate(subpath[:-1]) if _is_named_after(archive.stem, part)]
                if 0 not in matching_indices:
                    candidates.append(_Candidate(RANK_OTHER, 0, len(candidates), archive, (subpath,)))
                for folder_index in matching_indices:
                    rank = RANK_NEXT_FOLDER if folder_index == 0 else RANK_LATER_FOLDER
                    candidates.append(
                        _Candidate(
                            rank,
                            folder_index,
                            len(candidates),
                            archive,
                            (subpath[folder_index:], subpath[folder_index + 1 :]),
                        )
                    )
    return sorted(candidates, key=lambda candidate: candidate[:3])


def _is_named_after(stem: str, folder: str) -> bool:
    """Return whether an archive of this stem holds (a part of) the folder: `coco_1` of `coco`, but not `cocoa`."""
    return stem.startswith(folder) and (len(stem) == len(folder) or not stem[len(folder)].isalnum())


def _iter_member_names(candidate: _Candidate, index: ArchiveIndex) -> Iterator[str]:
    """Yield the names the member may have: its tails as they are, then inside the archive's common root.

    The second only in an archive that is named after a folder of the path.
    """
    for tail in candidate.tails:
        yield "/".join(tail)
    if index.common_root and candidate.rank != RANK_OTHER:
        common_root = tuple(index.common_root.split("/"))
        for tail in candidate.tails:
            yield _join_overlapping(common_root, tail)


def _join_overlapping(common_root: tuple[str, ...], tail: tuple[str, ...]) -> str:
    """Join the tail below `common_root`, shared folders once: (data, coco), (coco, 9.jpg) is data/coco/9.jpg."""
    n_shared = next(
        n for n in range(min(len(common_root), len(tail)), -1, -1) if common_root[len(common_root) - n :] == tail[:n]
    )
    return "/".join((*common_root, *tail[n_shared:]))


def _format_archive_path(root: Path, archive: Archive) -> str:
    folder = archive.paths[0].parent.relative_to(root).as_posix()
    name = archive.name if folder == "." else f"{folder}/{archive.name}"
    return name.encode("utf-8", "backslashreplace").decode()
