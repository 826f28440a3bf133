"""Errors of the lake itself."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from mvl_assets.errors import InfrastructureError, MvlError


class LakeError(MvlError):
    """A table cannot be read or written."""


class UnsafeTable(LakeError):
    """A table whose key is not protected against duplicates: wrong type, missing metadata, or an index on it."""


class DiskError(LakeError, InfrastructureError):
    """The disk is full or read-only."""


class SchemaMismatch(LakeError, InfrastructureError):
    """A table on disk has other columns than this version of the code expects."""


class UnknownKeyScheme(LakeError):
    """Rows whose identities were made by another scheme, so that this program cannot match them."""


class LeaseHeld(LakeError):
    """Another process is writing the same partition."""


def to_disk_error(error: BaseException, uri: str) -> DiskError | None:
    """Translate the error of a full or read-only disk; return None for any other error.

    Lance reports the operating system's errors inside the text of its own, so both forms are recognised.
    """
    text = str(error)
    error_number = getattr(error, "errno", None)
    if error_number == errno.ENOSPC or "No space left on device" in text:
        return DiskError(
            f"the disk is full while writing {uri}",
            hint="free some space and run again; what was committed is kept",
        )
    if error_number in (errno.EROFS, errno.EACCES, errno.EPERM) or any(
        t in text for t in ("Read-only file system", "Permission denied")
    ):
        return DiskError(
            f"the lake is read-only at {uri}",
            hint="make it writable or set MVL_LAKE to a folder you may write, then run again",
        )
    return None


@contextmanager
def translate_disk_errors(uri: str) -> Iterator[None]:
    """Raise the errors of a full or read-only disk as `DiskError`; other errors pass through."""
    try:
        yield
    except LakeError:
        raise
    except Exception as error:
        translated = to_disk_error(error, uri)
        if translated is None:
            raise
        raise translated from error
