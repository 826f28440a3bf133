"""What can go wrong with the lake itself, as errors a person can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from mvl_assets.errors import MachineError, MvlError


class LakeError(MvlError):
    """A table cannot be read or written."""


class UnsafeTable(LakeError):
    """A table whose key is not protected against duplicates: wrong key type, missing key metadata, or a BTREE on it."""


class DiskError(LakeError, MachineError):
    """The disk is full, or may not be written."""


class SchemaMismatch(LakeError, MachineError):
    """A table on disk has other columns than this version of the code expects."""


class LeaseHeld(LakeError):
    """Another process is writing the same partition."""


def disk_error(error: BaseException, uri: str) -> DiskError | None:
    """What a full or read-only disk is in a person's words; None for any other error.

    Lance reports the operating system's errors inside the text of its own, so both forms are looked for.
    """
    text = str(error)
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left on device" in text:
        return DiskError(
            f"the disk is full while writing {uri}",
            hint="free some space and run again; what was committed is kept",
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM) or any(
        t in text for t in ("Read-only file system", "Permission denied")
    ):
        return DiskError(
            f"the lake is read-only at {uri}",
            hint="make it writable or set MVL_LAKE to a folder you may write, then run again",
        )
    return None


@contextmanager
def disk_errors(uri: str) -> Iterator[None]:
    """Turns a full or read-only disk into a `DiskError` that says so; other errors pass through."""
    try:
        yield
    except LakeError:
        raise
    except Exception as error:
        found = disk_error(error, uri)
        if found is None:
            raise
        raise found from error
