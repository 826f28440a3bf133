"""Taking rows in and taking pictures out exclude each other.

An ingest that finds a picture stored does not store it again, and writes the sample that refers to it a little later:
a picture removed in between would be missing for good. So an ingest shares a lock of the kernel with other ingests, and
what removes pictures wants it alone. The kernel drops it with the process, however that ends. On an object store there
is no such lock: there nothing may be taken in while pictures are removed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mvl_assets.lake.durable import resolve_local_path
from mvl_assets.lake.errors import LeaseHeld, translate_disk_errors
from mvl_assets.lake.lake import Lake

LOCK_FILE = "pictures.lock"


@contextmanager
def acquire_ingest_lock(lake: Lake) -> Iterator[None]:
    """Held by every ingest. Raises `LeaseHeld` while something removes pictures."""
    with _acquire_flock(lake, fcntl.LOCK_SH) as is_acquired:
        if not is_acquired:
            raise LeaseHeld(
                f"data is being taken out of the lake {lake.root}",
                hint="wait until `mvl purge` or `mvl gc` is done, then run again",
            )
        yield


@contextmanager
def acquire_removal_lock(lake: Lake) -> Iterator[None]:
    """Held by whatever removes pictures. Raises `LeaseHeld` while an ingest runs, or another removal."""
    with _acquire_flock(lake, fcntl.LOCK_EX) as is_acquired:
        if not is_acquired:
            raise LeaseHeld(
                f"another process takes data into the lake {lake.root}, or out of it",
                hint="wait for it or cancel it, then run the same command again",
            )
        yield


@contextmanager
def _acquire_flock(lake: Lake, operation: int) -> Iterator[bool]:
    root = resolve_local_path(lake.root)
    if root is None:
        yield True
        return
    with translate_disk_errors(lake.root):
        root.mkdir(parents=True, exist_ok=True)
        fd = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
