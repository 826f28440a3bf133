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

START = "mvl-scratch-"


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A folder of this process below the system's temporary folder, gone when the block ends or, at the latest, when
    the next process asks for one: its owner holds a lock on it that the kernel drops with the process."""
    _sweep_once(Path(tempfile.gettempdir()))
    folder, lock = _locked_folder(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(parent: Path) -> int:
    """Removes what dead processes left below `parent`; returns how many folders that were."""
    removed = 0
    for folder in parent.glob(f"{START}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            removed += 1
    return removed


@cache
def _sweep_once(parent: Path) -> int:
    return sweep(parent)


def _locked_folder(purpose: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{START}{purpose}-"))
        lock = _lock(folder)
        # Another process may have swept the folder away before it was locked.
        if lock is not None and folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A handle that holds the folder's lock; None when another process holds it, or it is gone or not ours."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
