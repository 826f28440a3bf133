"""Which archive holds what a row names.

A row names `coco/train2017/9.jpg`. Archives are looked for beside every folder on that way: `coco.tar`,
`coco/train2017.zip`, `coco_1.tar.gz`, ... Those named after the next folder of the path come first, and their members
may begin with that folder or lie below it. Then all other archives there are asked for the path as it is; and last,
those named after a later folder of the path for what comes from that folder on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mvl_assets.common.natural_sort import natural
from mvl_assets.readers.archives.entry import ArchiveError, Entry
from mvl_assets.readers.archives.index import Index, index_of
from mvl_assets.readers.archives.member import Member
from mvl_assets.readers.archives.parts import Archive, archives_in
from mvl_assets.readers.rows import RowError

NAMED, OTHER, NAMED_LATER = range(3)
"""What an archive is named after: the next folder of the path, none of it, a later one (what precedes that in the path
is then not explained by the archive)."""


class _Ask(NamedTuple):
    """To look for one of `tails` in an archive; asks are sorted as they are asked."""

    rank: int
    place: int
    order: int
    archive: Archive
    tails: tuple[tuple[str, ...], ...]


def member_at(root: Path, names: Sequence[str]) -> Member | None:
    """The member that the first of `names` (paths relative to the root, in order of preference) leads to.

    None when there is no archive to look in, or none has it. Raises `RowError` for a member that must not be read, and
    when it is in none of the archives that can be read but may be in one that cannot: one that is named after the next
    folder of the path, or any other where there is none of these.
    """
    worst: tuple[Archive, ArchiveError] | None = None
    named_ones_are_fine = False
    for ask in _asks(root, names):
        trouble: ArchiveError | None
        try:
            index = index_of(root, ask.archive)
        except ArchiveError as error:
            trouble = error
        else:
            trouble = index.trouble
            for name in _spelled(ask, index):
                entry = index.find(name)
                if entry is not None:
                    return _usable(root, ask.archive, index, entry)
        if trouble is not None and (ask.rank == NAMED or not named_ones_are_fine):
            worst = worst or (ask.archive, trouble)
        named_ones_are_fine |= ask.rank == NAMED and trouble is None
    if worst is not None:
        archive, why = worst
        raise RowError(why.error, f"{names[0]!r} cannot be read from {_shown(root, archive)}: {why.message}")
    return None


def members_below(root: Path, names: Sequence[str]) -> list[Member]:
    """The files in the folder of an archive that the first of `names` leads to, in natural order; [] without one.

    Archives that cannot be opened are passed over. Raises `RowError` for a member that must not be read, and when the
    archive cannot be read to its end: nobody knows then which files the folder has.
    """
    # A folder is found by way of any file in it.
    for ask in _asks(root, [f"{name}/*" for name in names]):
        try:
            index = index_of(root, ask.archive)
        except ArchiveError:
            continue
        for name in _spelled(ask, index):
            folder, _, _ = name.rpartition("/")
            entries = index.below(folder) if folder else []
            if entries and index.trouble is not None:
                why = index.trouble
                raise RowError(
                    why.error, f"{names[0]!r} may not be whole in {_shown(root, ask.archive)}: {why.message}"
                )
            if entries:
                entries.sort(key=lambda entry: natural(entry.name))
                return [_usable(root, ask.archive, index, entry) for entry in entries]
    return []


def _usable(root: Path, archive: Archive, index: Index, entry: Entry) -> Member:
    if entry.error is not None:
        raise RowError(entry.error, f"{_shown(root, archive)}: {entry.name}: {entry.note}")
    return Member(_shown(root, archive), index.paths, entry)


def _asks(root: Path, names: Sequence[str]) -> list[_Ask]:
    """What to look for where, in order. `order` is that of `names`, then the natural one of the archives."""
    asks: list[_Ask] = []
    for name in names:
        parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        for depth in range(len(parts)):
            way = parts[depth:]
            for archive in archives_in(root.joinpath(*parts[:depth])):
                alike = [n for n, part in enumerate(way[:-1]) if _is_named_after(archive.stem, part)]
                if 0 not in alike:
                    asks.append(_Ask(OTHER, 0, len(asks), archive, (way,)))
                for place in alike:
                    rank = NAMED if place == 0 else NAMED_LATER
                    asks.append(_Ask(rank, place, len(asks), archive, (way[place:], way[place + 1 :])))
    return sorted(asks, key=lambda ask: ask[:3])


def _is_named_after(stem: str, folder: str) -> bool:
    """Whether an archive of this stem holds (a part of) the folder: `coco`, `coco_1` and `coco-train` of `coco`."""
    return stem.startswith(folder) and (len(stem) == len(folder) or not stem[len(folder)].isalnum())


def _spelled(ask: _Ask, index: Index) -> Iterator[str]:
    """The names the member may have: its tails as they are, and in an archive that is named after a folder of the path
    also inside the folders that all its members lie in."""
    for tail in ask.tails:
        yield "/".join(tail)
    if index.top and ask.rank != OTHER:
        top = tuple(index.top.split("/"))
        for tail in ask.tails:
            yield _inside(top, tail)


def _inside(top: tuple[str, ...], tail: tuple[str, ...]) -> str:
    """The tail below `top`, what they share counted once: (data, coco) and (coco, 9.jpg) is data/coco/9.jpg."""
    shared = next(n for n in range(min(len(top), len(tail)), -1, -1) if top[len(top) - n :] == tail[:n])
    return "/".join((*top, *tail[shared:]))


def _shown(root: Path, archive: Archive) -> str:
    folder = archive.paths[0].parent.relative_to(root).as_posix()
    name = archive.name if folder == "." else f"{folder}/{archive.name}"
    return name.encode("utf-8", "backslashreplace").decode()
