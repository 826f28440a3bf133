"""One process at a time trains in a stage's folder or exports from it: two would corrupt each other's files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvl_assets.common.file_lock import acquire_lock
from mvl_assets.errors import MvlError

LOCK_TIMEOUT_S = 10.0


class OutputBusy(MvlError):
    """Another process trains in the folder, or exports from it."""


def acquire_output_lock(output_dir: Path) -> int:
    """Lock the folder, which is created, and return the open descriptor; closing it releases the lock.

    Raises:
        OutputBusy: Another process still holds it after `LOCK_TIMEOUT_S`: one that was just killed needs a moment to be
            gone.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while (lock := acquire_lock(output_dir / ".lock", blocking=False)) is None:
        if time.monotonic() >= deadline:
            raise OutputBusy(
                f"another process works in {output_dir}", hint="wait for it or stop it; this process changed nothing"
            )
        time.sleep(0.1)
    return lock


@contextmanager
def hold_output_dir(output_dir: Path) -> Iterator[None]:
    """Hold the folder's lock during the block.

    Raises:
        OutputBusy: Another process holds it.
    """
    lock = acquire_output_lock(output_dir)
    try:
        yield
    finally:
        os.close(lock)
