"""The index of one archive: its members by name, in a small SQLite file in the source's folder.

    <root>/.unpacked/<name>-<state>.index     name -> offset, size, error
    <root>/.unpacked/<name>-<state>.tar       the plain tar of a compressed one

`<state>` is a digest of every part's name, size and mtime, so an index that exists is the right one; and it exists only
when it is complete: it is written under another name, synced, renamed. One process writes at a time; what a killed one
left is removed by the next. Where nothing can be written, plain archives get an index for as long as the process lives.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mvl_assets.common.atomic_write import TEMP_SUFFIX, replace_file
from mvl_assets.common.file_lock import hold_lock
from mvl_assets.config.settings import UNPACKED_DIR, resolve_unpacked_dir
from mvl_assets.errors import InfrastructureError
from mvl_assets.readers.archives import tar as tars
from mvl_assets.readers.archives import zip as zips
from mvl_assets.readers.archives.entry import ArchiveError, Entry
from mvl_assets.readers.archives.parts import Archive, compute_part_offsets, open_joined
from mvl_assets.readers.archives.unpack import is_compressed, unpack

MAX_OPEN_INDEXES = 600
"""Indexes kept open: more than the 332 archives of CC3M, fewer than the 1,024 files a process may usually open."""

INDEX_VERSION = 2  # increment it when the content of an index changes, so that older ones are rebuilt

_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_SCHEMA = """
    CREATE TABLE members (name TEXT PRIMARY KEY, place INT, stored INT, size INT, method INT, crc INT, error TEXT,
                          note TEXT) WITHOUT ROWID;
    CREATE TABLE facts (top TEXT, error TEXT, note TEXT);
"""
_INSERT_MEMBER = """
    INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET error = 'ambiguous_member', note = 'the archive holds it more than once'
"""


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """An open index.

    Attributes:
        paths: Files that hold the members' bytes.
        common_root: Folder that all members are in, "" for none.
        read_error: Why members may be missing, None when the archive was read to its end.
        connection: The SQLite file.
    """

    paths: tuple[Path, ...]
    common_root: str
    read_error: ArchiveError | None
    connection: sqlite3.Connection

    def find(self, name: str) -> Entry | None:
        row = self.connection.execute("SELECT * FROM members WHERE name = ?", (name,)).fetchone()
        return None if row is None else Entry(*row)

    def list_folder(self, folder: str) -> list[Entry]:
        """Return the members in the folder itself."""
        # "0" follows "/" in the order of bytes, so these are the names that begin with the folder.
        rows = self.connection.execute(
            "SELECT * FROM members WHERE name > ? AND name < ?", (f"{folder}/", f"{folder}0")
        )
        return [entry for entry in (Entry(*row) for row in rows) if "/" not in entry.name[len(folder) + 1 :]]


def open_index(root: Path, archive: Archive) -> ArchiveIndex:
    """Return the index of an archive below `root`; it is built if it does not exist.

    Raises:
        ArchiveError: The archive cannot be read.
        InfrastructureError: The disk is full.
    """
    if archive.missing_reason is not None:
        raise ArchiveError(archive.missing_reason)
    try:
        return _open_index(root, archive, archive.compute_fingerprint())
    except OSError as error:
        if error.errno in _DISK_FULL_ERRNOS:
            raise _build_disk_full_error(root) from error
        raise ArchiveError(f"it cannot be opened: {error.strerror or error}") from error
    except sqlite3.Error as error:
        if "full" in str(error):
            raise _build_disk_full_error(root) from error
        raise ArchiveError(f"its index cannot be read: {error}") from error


@lru_cache(maxsize=MAX_OPEN_INDEXES)
def _open_index(root: Path, archive: Archive, fingerprint: tuple[tuple[str, int, int], ...]) -> ArchiveIndex:
    resolved_root = root.resolve()
    if not all(path.resolve().is_relative_to(resolved_root) for path in archive.paths):
        raise ArchiveError("it is a link out of the source's folder")
    name = _compute_digest(archive.paths[0].parent.relative_to(root).as_posix(), archive.name)
    base_path = resolve_unpacked_dir(root) / f"{name}-{_compute_digest(INDEX_VERSION, fingerprint)}"
    with open_joined(archive.paths) as stream:
        has_compression = is_compressed(stream)
    index_path, tar_path = base_path.with_suffix(".index"), base_path.with_suffix(".tar")
    paths = (tar_path,) if has_compression else archive.paths
    if not _is_complete(index_path, has_compression, tar_path):
        try:
            with _hold_writer_lock(root):
                if not _is_complete(index_path, has_compression, tar_path):
                    _remove_stale_indexes(base_path.parent, name)
                    _write_index(archive, index_path, tar_path if has_compression else None)
        except OSError as error:
            if has_compression or error.errno in _DISK_FULL_ERRNOS:
                raise
            connection = sqlite3.connect("", check_same_thread=False)
            _insert_members(connection, paths, None)
            return _load_index(paths, connection)
    connection = sqlite3.connect(
        f"{index_path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )
    return _load_index(paths, connection)


def _load_index(paths: tuple[Path, ...], connection: sqlite3.Connection) -> ArchiveIndex:
    connection.execute("PRAGMA cache_size = -64")  # KiB; many are open at once
    common_root, error, detail = connection.execute("SELECT top, error, note FROM facts").fetchone()
    return ArchiveIndex(paths, common_root, None if error is None else ArchiveError(detail, error), connection)


def _is_complete(index_path: Path, has_compression: bool, tar_path: Path) -> bool:
    return index_path.is_file() and (not has_compression or tar_path.is_file())


def _write_index(archive: Archive, index_path: Path, tar_path: Path | None) -> None:
    """Write the plain tar, then the index; each is complete or absent."""
    paths, read_error = archive.paths, None
    if tar_path is not None:
        with (
            replace_file(tar_path, fsync=True, unique=False) as temp_path,
            open_joined(paths) as stream,
            temp_path.open("wb") as target,
        ):
            read_error = unpack(stream, compute_part_offsets(paths)[1], target, tar_path.parent)
        paths = (tar_path,)
    with (
        replace_file(index_path, fsync=True, unique=False) as temp_path,
        contextlib.closing(sqlite3.connect(temp_path)) as connection,
    ):
        _insert_members(connection, paths, read_error)


def _insert_members(connection: sqlite3.Connection, paths: Sequence[Path], read_error: ArchiveError | None) -> None:
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(_SCHEMA)
    common_root = _CommonRoot()
    part_offsets, total_bytes = compute_part_offsets(paths)
    with open_joined(paths) as stream, connection:
        stream.seek(0)
        is_zip = stream.read(4) in (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
        try:
            members = (
                zips.iter_entries(stream, part_offsets, total_bytes)
                if is_zip
                else tars.iter_entries(stream, total_bytes)
            )
            connection.executemany(_INSERT_MEMBER, _iter_member_rows(members, common_root))
        except ArchiveError as error:
            read_error = read_error or error
        error_columns = (None, None) if read_error is None else (read_error.code, read_error.message)
        connection.execute("INSERT INTO facts VALUES (?, ?, ?)", (common_root.name, *error_columns))


def _iter_member_rows(members: Iterable[Entry], common_root: _CommonRoot) -> Iterator[tuple[object, ...]]:
    for entry in members:
        if entry.name and not _is_macos_metadata(entry.name):
            if entry.error is None:
                common_root.add(entry.name)
            yield (
                entry.name,
                entry.offset,
                entry.compressed_size,
                entry.size,
                entry.method,
                entry.crc,
                entry.error,
                entry.detail,
            )


def _is_macos_metadata(name: str) -> bool:
    """Return whether macOS added the member: attributes, icons."""
    parts = name.split("/")
    return "__MACOSX" in parts[:-1] or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


class _CommonRoot:
    """The folders that all names share."""

    def __init__(self) -> None:
        self._parts: list[str] | None = None

    def add(self, name: str) -> None:
        folders = name.split("/")[:-1]
        if self._parts is None:
            self._parts = folders
        elif self._parts != folders[: len(self._parts)]:
            n_shared = 0
            while n_shared < min(len(folders), len(self._parts)) and folders[n_shared] == self._parts[n_shared]:
                n_shared += 1
            self._parts = folders[:n_shared]

    @property
    def name(self) -> str:
        return "/".join(self._parts or ())


@contextlib.contextmanager
def _hold_writer_lock(root: Path) -> Iterator[None]:
    """Let one process at a time write below `.unpacked`; unfinished files found there belong to no running process."""
    folder = resolve_unpacked_dir(root)
    if folder.is_symlink():
        raise OSError(errno.ELOOP, f"{UNPACKED_DIR} is a link")
    folder.mkdir(exist_ok=True, parents=folder.parent != root)
    with hold_lock(folder / "lock", flags=os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, mode=0o666):
        for temp_path in folder.glob(f"*{TEMP_SUFFIX}*"):
            temp_path.unlink(missing_ok=True)
        yield


def _remove_stale_indexes(folder: Path, name: str) -> None:
    """Remove the files of earlier states of the same archive."""
    for stale_path in folder.glob(f"{name}-*"):
        stale_path.unlink(missing_ok=True)


def _compute_digest(*values: object) -> str:
    text = json.dumps(values, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _build_disk_full_error(root: Path) -> InfrastructureError:
    return InfrastructureError(
        f"the disk of {root} is full", hint="free some space and run again; unfinished files are rebuilt"
    )
