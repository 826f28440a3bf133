"""Where the lake's bytes are, and the options with which every library reaches them.

`AWS_ENDPOINT_URL` (or `AWS_ENDPOINT`) is all that an S3-compatible store needs besides its keys: whether it speaks
plain HTTP follows from its scheme, and its region is `us-east-1` unless `AWS_REGION` says otherwise. On AWS itself
nothing but keys is needed. The options say where the store is and never hold credentials: Lance and Arrow find those
themselves, in the environment, in the files of `AWS_PROFILE` or from the machine's role, and renew them.

DuckDB needs no options, because it reads nothing from the store: rows reach it as Arrow batches of a Lance scan, and it
spills to local disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from mvl_assets.errors import MvlError
from mvl_assets.lake.errors import translate_disk_errors

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
DEFAULT_REGION = "us-east-1"
CONNECT_TIMEOUT_S = 10


def resolve_local_path(uri: str) -> Path | None:
    """Return the folder of a local URI, or None for an object store."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)


def build_storage_options(uri: str) -> dict[str, str] | None:
    """Return the `storage_options` with which Lance opens a URI; None where it needs none.

    Raises:
        MvlError: The variables of the endpoint contradict each other or lack a scheme.
    """
    if not uri.startswith("s3://"):
        return None
    endpoint, region = _read_endpoint(), _read_region()
    options = {}
    if endpoint is not None:
        options["aws_endpoint"] = endpoint
        options["allow_http"] = str(endpoint.startswith("http://")).lower()
    if region is not None:
        options["aws_region"] = region
    return options or None


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a local path or object-store URI, and the path in it.

    Raises:
        MvlError: As `build_storage_options`.
    """
    local_path = resolve_local_path(uri)
    if local_path is not None:
        return pafs.LocalFileSystem(), str(local_path)
    endpoint, region = _read_endpoint(), _read_region()
    if not uri.startswith("s3://") or (endpoint is None and region is None):
        return pafs.FileSystem.from_uri(uri)
    scheme, _, address = (endpoint or "").partition("://")
    filesystem = pafs.S3FileSystem(
        region=region,
        endpoint_override=address or None,
        scheme=scheme or "https",
        connect_timeout=CONNECT_TIMEOUT_S,
    )
    return filesystem, uri.removeprefix("s3://").rstrip("/")


def check_store(uri: str) -> None:
    """Ask an object store whether it can be used, with one small request; a local path is not looked at.

    Raises:
        StoreError: Wrong credentials, region or bucket, or nothing answers there.
        MvlError: The variables of the endpoint are wrong.
    """
    if resolve_local_path(uri) is not None:
        return
    parts = urlsplit(uri)
    with translate_disk_errors(uri):
        filesystem, path = open_filesystem(uri)
        entries = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        # Arrow lists a missing bucket like an empty one.
        is_missing = (
            not entries
            and parts.scheme == "s3"
            and filesystem.get_file_info(parts.netloc).type == pafs.FileType.NotFound
        )
        if is_missing:
            raise OSError("AWS Error NO_SUCH_BUCKET")


def _read_endpoint() -> str | None:
    values = {name: value for name in ENDPOINT_VARIABLES if (value := os.environ.get(name, "").strip().rstrip("/"))}
    if ENDPOINT_VARIABLES[0] in values:
        values = {ENDPOINT_VARIABLES[0]: values[ENDPOINT_VARIABLES[0]]}
    if len(set(values.values())) > 1:
        raise MvlError(
            " and ".join(f"{name}={value}" for name, value in values.items()) + " are different endpoints",
            hint="set one of them",
        )
    for name, endpoint in values.items():
        if not endpoint.startswith(("http://", "https://")):
            raise MvlError(f"{name}={endpoint} lacks its scheme", hint="write http://… or https://…")
        return endpoint
    return None


def _read_region() -> str | None:
    region = next((value for name in REGION_VARIABLES if (value := os.environ.get(name))), None)
    return region or (DEFAULT_REGION if _read_endpoint() is not None else None)
