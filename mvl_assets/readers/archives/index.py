"""The index of one archive: its members by name, in a small SQLite file beside the source's files.

    <root>/.unpacked/<name>-<state>.index     name -> place, size, flaw
    <root>/.unpacked/<name>-<state>.tar       the plain tar of a compressed one

`<state>` is a digest of every part's name, size and time of change, so a file that is there is the right one, and it is
there only when it is whole: it is written under another name, synced, renamed. One process writes at a time; what a
killed one left is cleared by the next. Where nothing can be written, plain archives get an index that lives as long as
the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mvl_assets.config.settings import UNPACKED
from mvl_assets.errors import MachineError
from mvl_assets.readers.archives import tar as tars
from mvl_assets.readers.archives import zip as zips
from mvl_assets.readers.archives.entry import ArchiveError, Entry
from mvl_assets.readers.archives.parts import Archive, opened, starts_of
from mvl_assets.readers.archives.unpack import is_compressed, unpack

OPEN = 600
"""Indexes kept open: more than the 332 archives of CC3M, fewer than the 1,024 files a process may usually open."""

EDITION = 2  # raise it when an index is to hold something else, so that older ones are made anew

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TABLES = """
    CREATE TABLE members (name TEXT PRIMARY KEY, place INT, stored INT, size INT, method INT, crc INT, error TEXT,
                          note TEXT) WITHOUT ROWID;
    CREATE TABLE facts (top TEXT, error TEXT, note TEXT);
"""
_INSERT = """
    INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET error = 'ambiguous_member', note = 'the archive holds it more than once'
"""


@dataclass(frozen=True, slots=True)
class Index:
    """An opened index. `paths` hold the members' bytes; `top` is the folder that all members lie in ("" = none);
    `trouble` says why members may be missing."""

    paths: tuple[Path, ...]
    top: str
    trouble: ArchiveError | None
    connection: sqlite3.Connection

    def find(self, name: str) -> Entry | None:
        found = self.connection.execute("SELECT * FROM members WHERE name = ?", (name,)).fetchone()
        return None if found is None else Entry(*found)

    def below(self, folder: str) -> list[Entry]:
        """The members that lie in the folder itself."""
        # "0" follows "/" in the order of bytes, so these are the names that begin with the folder.
        rows = self.connection.execute(
            "SELECT * FROM members WHERE name > ? AND name < ?", (f"{folder}/", f"{folder}0")
        )
        return [entry for entry in (Entry(*row) for row in rows) if "/" not in entry.name[len(folder) + 1 :]]


def index_of(root: Path, archive: Archive) -> Index:
    """The index of an archive below `root`, made when it is not there. Raises `ArchiveError` when there can be none,
    `MachineError` when the disk is full."""
    if archive.missing is not None:
        raise ArchiveError(archive.missing)
    try:
        return _index(root, archive, archive.state())
    except OSError as error:
        if error.errno in _FULL:
            raise _full(root) from error
        raise ArchiveError(f"it cannot be opened: {error.strerror or error}") from error
    except sqlite3.Error as error:
        if "full" in str(error):
            raise _full(root) from error
        raise ArchiveError(f"its index cannot be read: {error}") from error


@lru_cache(maxsize=OPEN)
def _index(root: Path, archive: Archive, state: tuple[tuple[str, int, int], ...]) -> Index:
    home = root.resolve()
    if not all(path.resolve().is_relative_to(home) for path in archive.paths):
        raise ArchiveError("it is a link out of the source's folder")
    name = _digest(archive.paths[0].parent.relative_to(root).as_posix(), archive.name)
    place = root / UNPACKED / f"{name}-{_digest(EDITION, state)}"
    with opened(archive.paths) as stream:
        compressed = is_compressed(stream)
    index, plain = place.with_suffix(".index"), place.with_suffix(".tar")
    paths = (plain,) if compressed else archive.paths
    if not _is_there(index, compressed, plain):
        try:
            with _only_writer(root):
                if not _is_there(index, compressed, plain):
                    _remove_others(place.parent, name)
                    _make(archive, index, plain if compressed else None)
        except OSError as error:
            if compressed or error.errno in _FULL:
                raise
            connection = sqlite3.connect("", check_same_thread=False)
            _fill(connection, paths, None)
            return _opened(paths, connection)
    connection = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    return _opened(paths, connection)


def _opened(paths: tuple[Path, ...], connection: sqlite3.Connection) -> Index:
    connection.execute("PRAGMA cache_size = -64")  # KiB; many are open at once
    top, error, note = connection.execute("SELECT top, error, note FROM facts").fetchone()
    return Index(paths, top, None if error is None else ArchiveError(note, error), connection)


def _is_there(index: Path, compressed: bool, plain: Path) -> bool:
    return index.is_file() and (not compressed or plain.is_file())


def _make(archive: Archive, index: Path, plain: Path | None) -> None:
    """Writes the plain tar, then the index; each is complete or absent."""
    paths, trouble = archive.paths, None
    if plain is not None:
        with _complete_or_absent(plain) as unfinished, opened(paths) as stream, unfinished.open("wb") as target:
            trouble = unpack(stream, starts_of(paths)[1], target, plain.parent)
        paths = (plain,)
    with _complete_or_absent(index) as unfinished, contextlib.closing(sqlite3.connect(unfinished)) as connection:
        _fill(connection, paths, trouble)


def _fill(connection: sqlite3.Connection, paths: Sequence[Path], trouble: ArchiveError | None) -> None:
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(_TABLES)
    top = _Top()
    starts, total = starts_of(paths)
    with opened(paths) as stream, connection:
        stream.seek(0)
        is_zip = stream.read(4) in (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
        try:
            members = zips.walk(stream, starts, total) if is_zip else tars.walk(stream, total)
            connection.executemany(_INSERT, _rows(members, top))
        except ArchiveError as error:
            trouble = trouble or error
        found = (None, None) if trouble is None else (trouble.error, trouble.message)
        connection.execute("INSERT INTO facts VALUES (?, ?, ?)", (top.name, *found))


def _rows(members: Iterable[Entry], top: _Top) -> Iterator[tuple[object, ...]]:
    for entry in members:
        if entry.name and not _is_of_macos(entry.name):
            if entry.error is None:
                top.add(entry.name)
            yield (
                entry.name,
                entry.offset,
                entry.stored,
                entry.size,
                entry.method,
                entry.crc,
                entry.error,
                entry.note,
            )


def _is_of_macos(name: str) -> bool:
    """Whether macOS put it there beside somebody's files: attributes, icons."""
    parts = name.split("/")
    return "__MACOSX" in parts[:-1] or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


class _Top:
    """The folders that all names share."""

    def __init__(self) -> None:
        self._parts: list[str] | None = None

    def add(self, name: str) -> None:
        folders = name.split("/")[:-1]
        if self._parts is None:
            self._parts = folders
        elif self._parts != folders[: len(self._parts)]:
            same = 0
            while same < min(len(folders), len(self._parts)) and folders[same] == self._parts[same]:
                same += 1
            self._parts = folders[:same]

    @property
    def name(self) -> str:
        return "/".join(self._parts or ())


@contextlib.contextmanager
def _only_writer(root: Path) -> Iterator[None]:
    """One process at a time writes below `.unpacked`; unfinished files that are there then belong to nobody."""
    folder = root / UNPACKED
    if folder.is_symlink():
        raise OSError(errno.ELOOP, f"{UNPACKED} is a link")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for unfinished in folder.glob("*.tmp*"):
            unfinished.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def _remove_others(folder: Path, name: str) -> None:
    """What belongs to earlier states of the same archive."""
    for old in folder.glob(f"{name}-*"):
        old.unlink(missing_ok=True)


@contextlib.contextmanager
def _complete_or_absent(place: Path) -> Iterator[Path]:
    """Another name to write under; what was written there is synced and renamed when the block ends well."""
    unfinished = place.with_name(f"{place.name}.tmp")
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.rename(place)
        _sync(place.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(*values: object) -> str:
    text = json.dumps(values, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _full(root: Path) -> MachineError:
    return MachineError(f"the disk of {root} is full", hint="free some space; what was begun is made anew")
