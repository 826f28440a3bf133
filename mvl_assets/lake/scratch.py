"""Folders for what a process spools to disk and throws away, also when it was killed before it could.

Belongs here: making them and clearing away those of processes that are gone. What is spooled is the caller's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SCRATCH_PREFIX = "mvl-scratch-"


@contextmanager
def create_scratch_dir(purpose: str) -> Iterator[Path]:
    """A folder of this process below the system's temporary folder, gone when the block ends or, at the latest, when
    the next process asks for one: its owner holds a lock on it that the kernel drops with the process."""
    _sweep_once(Path(tempfile.gettempdir()))
    folder, lock_fd = _create_locked_dir(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock_fd)


def sweep_scratch_dirs(parent: Path) -> int:
    """Removes what dead processes left below `parent`; returns how many folders that were."""
    n_removed = 0
    for folder in parent.glob(f"{SCRATCH_PREFIX}*"):
        lock_fd = _lock_dir(folder)
        if lock_fd is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock_fd)
            n_removed += 1
    return n_removed


@cache
def _sweep_once(parent: Path) -> int:
    return sweep_scratch_dirs(parent)


def _create_locked_dir(purpose: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{purpose}-"))
        lock_fd = _lock_dir(folder)
        # Another process may have swept the folder away before it was locked.
        if lock_fd is not None and folder.is_dir():
            return folder, lock_fd
        if lock_fd is not None:
            os.close(lock_fd)


def _lock_dir(folder: Path) -> int | None:
    """A handle that holds the folder's lock; None when another process holds it, or it is gone or not ours."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
