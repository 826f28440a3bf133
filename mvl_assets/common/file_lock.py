"""Advisory locks of the kernel on files, which end with the process that holds them, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CREATE_FLAGS = os.O_RDWR | os.O_CREAT


def acquire_lock(
    path: Path, *, shared: bool = False, blocking: bool = True, flags: int = CREATE_FLAGS, mode: int = 0o644
) -> int | None:
    """Open a file and lock it; closing the descriptor releases the lock.

    The file must stay: if it were removed, a third process would lock another file of the same name.

    Args:
        path: The file to lock, created if `flags` say so.
        shared: Let other holders of a shared lock in.
        blocking: Wait for other holders.
        flags: How to open the file, as for `os.open`.
        mode: Permissions of a new file.

    Returns:
        The open descriptor, or None if another process holds the lock and `blocking` is False.

    Raises:
        OSError: The file cannot be opened or locked.
    """
    fd = os.open(path, flags, mode)
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB)
    try:
        fcntl.flock(fd, operation)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def hold_lock(path: Path, *, shared: bool = False, flags: int = CREATE_FLAGS, mode: int = 0o644) -> Iterator[None]:
    """Wait for the lock on a file and hold it during the block.

    Args:
        path: The file to lock.
        shared: Let other holders of a shared lock in.
        flags: How to open the file, as for `os.open`.
        mode: Permissions of a new file.

    Raises:
        OSError: The file cannot be opened or locked.
    """
    fd = acquire_lock(path, shared=shared, flags=flags, mode=mode)
    assert fd is not None
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def try_lock(path: Path, *, shared: bool = False, flags: int = CREATE_FLAGS, mode: int = 0o644) -> Iterator[bool]:
    """Hold the lock on a file during the block, or yield False at once if another process holds it.

    Args:
        path: The file to lock.
        shared: Let other holders of a shared lock in.
        flags: How to open the file, as for `os.open`.
        mode: Permissions of a new file.

    Raises:
        OSError: The file cannot be opened or locked.
    """
    fd = acquire_lock(path, shared=shared, blocking=False, flags=flags, mode=mode)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)
