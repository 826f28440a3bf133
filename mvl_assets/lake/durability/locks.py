"""Locks of a lake: ingests share the ingest lock, removing images takes it exclusively; one ingest has a source.

An ingest that finds an image stored does not store it again, and writes the sample that refers to it a little later: an
image removed in between would be missing for good. On a disk the lock is a kernel lock on a file in the lake, released
when its process ends, however it ends; in an object store it is a lease (see `store_lock`) that ends some minutes after
its process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mvl_assets.common.file_lock import try_lock
from mvl_assets.lake.durability.store_lock import try_store_lock
from mvl_assets.lake.errors import LeaseHeld, translate_disk_errors
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import resolve_local_path

LOCK_DIR = "locks"
IMAGES_LOCK, SOURCE_LOCK_DIR = "images", "ingest"


@contextmanager
def acquire_ingest_lock(lake: Lake) -> Iterator[None]:
    """Share the lock with other ingests during the block. Raises `LeaseHeld` while images are being removed."""
    with _try_lock(lake, IMAGES_LOCK, shared=True) as is_acquired:
        if not is_acquired:
            raise LeaseHeld(
                f"data is being removed from the lake {lake.root}",
                hint="wait until `mvl purge` or `mvl gc` is done, then run again",
            )
        yield


@contextmanager
def acquire_source_lock(lake: Lake, source: str) -> Iterator[None]:
    """Hold the lock on a source's samples during the block. Raises `LeaseHeld` while another ingest reads it."""
    with _try_lock(lake, f"{SOURCE_LOCK_DIR}/{source}", shared=False) as is_acquired:
        if not is_acquired:
            raise LeaseHeld(
                f"{source} is being ingested into the lake {lake.root} by another process",
                hint="wait for it or cancel it, then run again; in an object store a killed one counts as running for "
                "some minutes",
            )
        yield


@contextmanager
def acquire_removal_lock(lake: Lake) -> Iterator[None]:
    """Hold the lock alone during the block. Raises `LeaseHeld` while an ingest or another removal runs."""
    with _try_lock(lake, IMAGES_LOCK, shared=False) as is_acquired:
        if not is_acquired:
            raise LeaseHeld(
                f"another process is ingesting into the lake {lake.root}, or removing from it",
                hint="wait for it or cancel it, then run the same command again; in an "
                "object store a killed one counts as running for some minutes",
            )
        yield


@contextmanager
def _try_lock(lake: Lake, name: str, *, shared: bool) -> Iterator[bool]:
    root = resolve_local_path(lake.root)
    if root is None:
        with try_store_lock(f"{lake.root}/{LOCK_DIR}/{name}", shared=shared) as is_acquired:
            yield is_acquired
        return
    with ExitStack() as stack:
        with translate_disk_errors(lake.root):
            path = root / LOCK_DIR / f"{name}.lock"
            path.parent.mkdir(parents=True, exist_ok=True)
            is_acquired = stack.enter_context(try_lock(path, shared=shared))
        yield is_acquired
