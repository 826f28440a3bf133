"""Files and folders that appear under their name complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMP_SUFFIX = ".tmp"


@contextmanager
def replace_file(path: Path, *, fsync: bool = False, unique: bool = True) -> Iterator[Path]:
    """Yield a path to write to, and rename that file to `path` if the block ends without an error.

    The folder of `path` must exist. After an error, `path` is as before and the temporary file is gone.

    Args:
        path: The file to create or replace.
        fsync: Make both the content and the name survive a power cut.
        unique: Give the temporary file a name of this process, so that several processes may write the same file.
            False for a single writer: its next run then overwrites what a killed run has left.
    """
    temp_path = _build_temp_path(path, unique)
    try:
        yield temp_path
        if fsync:
            fsync_path(temp_path)
        temp_path.replace(path)
    except BaseException:
        temp_path.unlink(missing_ok=True)
        raise
    if fsync:
        fsync_path(path.parent)


def write_text_atomic(path: Path, text: str, *, fsync: bool = False, unique: bool = True) -> None:
    """Replace a file's content with UTF-8 text.

    Args:
        path: The file to create or replace.
        text: The new content.
        fsync: As for `replace_file`.
        unique: As for `replace_file`.
    """
    write_bytes_atomic(path, text.encode("utf-8"), fsync=fsync, unique=unique)


def write_bytes_atomic(path: Path, data: bytes, *, fsync: bool = False, unique: bool = True) -> None:
    """Replace a file's content with these bytes.

    Args:
        path: The file to create or replace.
        data: The new content.
        fsync: As for `replace_file`.
        unique: As for `replace_file`.
    """
    with replace_file(path, fsync=fsync, unique=unique) as temp_path:
        temp_path.write_bytes(data)


@contextmanager
def replace_dir(path: Path, *, fsync: bool = False, unique: bool = True) -> Iterator[Path]:
    """Yield a new folder to fill, and rename it to `path` if the block ends without an error.

    A folder that is already at `path` is removed just before the rename, so a process killed between the two leaves
    neither. After an error, `path` is as before and the new folder is gone. The arguments are those of `replace_file`;
    with `unique=False` the temporary folder of a killed run is removed first.
    """
    temp_path = _build_temp_path(path, unique)
    if temp_path.exists():
        shutil.rmtree(temp_path)
    temp_path.mkdir(parents=True)
    try:
        yield temp_path
        if fsync:
            fsync_tree(temp_path)
        if path.exists():
            shutil.rmtree(path)
        temp_path.rename(path)
    except BaseException:
        shutil.rmtree(temp_path, ignore_errors=True)
        raise
    if fsync:
        fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Bring a file, or the list of names in a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(folder: Path) -> None:
    """Bring all files and folders below `folder`, and the folder itself, to the disk."""
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            fsync_path(path)
    fsync_path(folder)


def _build_temp_path(path: Path, unique: bool) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{TEMP_SUFFIX}" if unique else f".{path.name}{TEMP_SUFFIX}")
