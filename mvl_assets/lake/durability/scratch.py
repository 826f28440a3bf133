"""Temporary folders that are removed with their process, or by the next process if it was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mvl_assets.common.file_lock import acquire_lock
from mvl_assets.common.scratch_location import SCRATCH_HINT, create_scratch_parent
from mvl_assets.lake.errors import DiskError

SCRATCH_PREFIX = "mvl-scratch-"


@contextmanager
def create_scratch_dir(purpose: str) -> Iterator[Path]:
    """Yield a new folder below `MVL_SCRATCH`, and remove it when the block ends.

    Its owner holds a lock on it, which the kernel releases with the process. The first folder of a process sweeps away
    what killed processes have left.

    Raises:
        DiskError: No folder can be made there.
    """
    parent = create_scratch_parent()
    _sweep_once(parent)
    try:
        folder, lock_fd = _create_locked_dir(parent, purpose)
    except OSError as error:
        raise DiskError(f"no temporary folder can be made in {parent}: {error.strerror}", hint=SCRATCH_HINT) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock_fd)


def sweep_scratch_dirs(parent: Path) -> int:
    """Remove what killed processes have left in `parent`, and return the number of folders."""
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


def _create_locked_dir(parent: Path, purpose: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{purpose}-", dir=parent))
        lock_fd = _lock_dir(folder)
        # Another process may have swept the folder away before it was locked.
        if lock_fd is not None and folder.is_dir():
            return folder, lock_fd
        if lock_fd is not None:
            os.close(lock_fd)


def _lock_dir(folder: Path) -> int | None:
    """Lock a folder; None if another process holds it, or it is gone, or it belongs to another user."""
    try:
        return acquire_lock(folder, blocking=False, flags=os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
