"""Errors of the lake itself."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mvl_assets.errors import InfrastructureError, MvlError


class LakeError(MvlError):
    """A table cannot be read or written."""


class UnsafeTable(LakeError):
    """A table whose key is not protected against duplicates: wrong type, missing metadata, or an index on it."""


class DiskError(LakeError, InfrastructureError):
    """The disk is full or read-only."""


class StoreError(LakeError, InfrastructureError):
    """The object store cannot be reached, or refuses the credentials, the region or the bucket."""


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


# Words of Lance's and Arrow's clients when a request to a store has failed.
_STORE_ERROR = re.compile(r"Generic (S3|GCS|MicrosoftAzure) error|AWS Error|AWS credentials")
# (words in the error, what is wrong, what to do); the first that fits is taken.
_STORE_FAULTS = (
    (
        r"NoSuchBucket|NO_SUCH_BUCKET|ContainerNotFound",
        "the bucket of {uri} does not exist",
        "create it, or correct MVL_LAKE or MVL_EXPORT",
    ),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|AUTHORIZATION_HEADER_MALFORMED|IllegalLocationConstraint"
        r"|onfigured region|HTTP status 301|301 Moved",
        "the bucket of {uri} is in another region",
        "set AWS_REGION to the bucket's region",
    ),
    (
        r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|SIGNATURE_DOES_NOT_MATCH|InvalidToken"
        r"|INVALID_CLIENT_TOKEN_ID|ExpiredToken|EXPIRED_TOKEN|UNRECOGNIZED_CLIENT|AWS credentials|401 Unauthorized",
        "the object store does not accept the credentials for {uri}",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN if they are temporary), or AWS_PROFILE",
    ),
    (
        r"AccessDenied|ACCESS_DENIED|403 Forbidden",
        "the object store denies access to {uri}",
        "check the credentials: their owner has to be allowed to list, read, write and delete there",
    ),
    (
        r"NETWORK_CONNECTION|resolve region|error sending request|onnection refused|dns error|timed out|curlCode",
        "the object store of {uri} cannot be reached",
        "check the network and AWS_ENDPOINT_URL (unset it for AWS itself), then run again",
    ),
)


def to_store_error(error: BaseException, uri: str) -> StoreError | None:
    """Translate the error of an object store that cannot be used; return None for any other error.

    The store's own text is left out: it may quote the request with its credentials.
    """
    text = str(error)
    if not _STORE_ERROR.search(text):
        return None
    for words, fault, hint in _STORE_FAULTS:
        if re.search(words, text):
            return StoreError(fault.format(uri=uri), hint=hint)
    return None


def is_store_error(error: BaseException) -> bool:
    """Return whether a request to an object store has failed, for whatever reason."""
    return bool(_STORE_ERROR.search(str(error)))


@contextmanager
def translate_store_errors(uri: str) -> Iterator[None]:
    """Raise the errors of an unusable object store as `StoreError`; others pass through."""
    try:
        yield
    except LakeError:
        raise
    except Exception as error:
        store_error = to_store_error(error, uri)
        if store_error is None:
            raise
        raise store_error from None


@contextmanager
def translate_disk_errors(uri: str) -> Iterator[None]:
    """Raise the errors of a full or read-only disk, or of an unusable object store, as such; others pass through."""
    try:
        with translate_store_errors(uri):
            yield
    except LakeError:
        raise
    except Exception as error:
        translated = to_disk_error(error, uri)
        if translated is None:
            raise
        raise translated from error
