"""Downloads one file, which appears complete and checked or not at all.

What arrives goes to a part file in `<folder>/.fetch/`, together with the server's validator. A later attempt, also by
another process after kill -9, requests the rest with `Range` and `If-Range`; a server that has another file by now
sends that one whole. The file gets its name by one rename, after its size and checksum were found right.

`huggingface_hub` is not used for this: it downloads to a name that differs per process, so a killed download starts
over.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import random
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from mvl_assets.common.atomic_write import fsync_path
from mvl_assets.errors import InfrastructureError
from mvl_assets.fetch import connection
from mvl_assets.fetch.connection import TransientError
from mvl_assets.fetch.errors import FetchError, FetchRefused
from mvl_assets.fetch.progress import TransferMeter, format_bytes
from mvl_assets.fetch.state import PARTIAL_DIR

CHUNK_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 42
"""Largest number of bytes of a file of unknown size: 4 TiB."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to download: its name below the folder, its URL, and its expected size and checksums where known.

    `auth_headers` are headers for the first host only; they are never shown.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    auth_headers: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts without a single new byte, and the first pause between two attempts, in seconds."""

    max_attempts: int = 8
    backoff_base_s: float = 1.0


class PartialFile:
    """The part of one file that has arrived, and its running checksum."""

    def __init__(self, folder: Path, remote_file: RemoteFile) -> None:
        # Named by its content where that is known, so the part of another commit's file is never continued.
        content_id = remote_file.sha256 or remote_file.git_sha1 or remote_file.url
        stem = hashlib.sha256(f"{remote_file.name}\0{content_id}".encode()).hexdigest()[:32]
        self.path = folder / PARTIAL_DIR / f"{stem}.part"
        self._validator_path = folder / PARTIAL_DIR / f"{stem}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._hash, self._hashed_bytes = hashlib.sha256(), 0

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """The server's validator (ETag or date) of the file of which this is a part."""
        try:
            return str(json.loads(self._validator_path.read_text(encoding="utf-8"))["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def start(self, validator: str | None) -> None:
        """Discard what has arrived and start a file with this validator."""
        self.discard()
        self.path.touch()
        if validator is not None:
            self._validator_path.write_text(json.dumps({"validator": validator}), encoding="utf-8")

    def discard(self) -> None:
        """Remove what has arrived."""
        self.path.unlink(missing_ok=True)
        self._validator_path.unlink(missing_ok=True)
        self._hash, self._hashed_bytes = hashlib.sha256(), 0

    def append(self, chunk: bytes) -> None:
        """Add bytes to the file and to the checksum."""
        with self.path.open("ab") as file:
            file.write(chunk)
        self._hash.update(chunk)
        self._hashed_bytes += len(chunk)

    def rehash(self) -> None:
        """Bring the checksum up to date with what an earlier process left."""
        if self._hashed_bytes != self.size:
            self._hash, self._hashed_bytes = hashlib.sha256(), 0
            with self.path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    self._hash.update(chunk)
                    self._hashed_bytes += len(chunk)

    def compute_sha256(self) -> str:
        """Return the checksum of the bytes that have arrived."""
        self.rehash()
        return self._hash.hexdigest()

    def finalize(self, target_path: Path) -> None:
        """Rename the complete file so that it survives a power cut or is not there."""
        fsync_path(self.path)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target_path)
        fsync_path(target_path.parent)
        self._validator_path.unlink(missing_ok=True)


class Downloader:
    """Downloads the files of one source into its folder."""

    def __init__(
        self, source: str, folder: Path, session: aiohttp.ClientSession, meter: TransferMeter, retry_policy: RetryPolicy
    ) -> None:
        self._source, self._folder, self._session = source, folder, session
        self._meter, self._retry_policy = meter, retry_policy

    async def download(self, remote_file: RemoteFile) -> str:
        """Download one file and return its sha256.

        Raises:
            FetchError: The file cannot be fetched or is not the right one.
            InfrastructureError: The disk is full.
        """
        partial = PartialFile(self._folder, remote_file)
        n_attempts = 0
        while True:
            size_before = partial.size
            try:
                await self._attempt_download(remote_file, partial)
                return await asyncio.to_thread(self._verify_and_finalize, remote_file, partial)
            except TransientError as fault:
                n_attempts = 1 if partial.size > size_before else n_attempts + 1
                if n_attempts >= self._retry_policy.max_attempts:
                    hint = "run it again: what has arrived is kept" if partial.size else "run it again later"
                    raise FetchError(self._source, fault.reason, file=remote_file.name, hint=hint) from fault
                delay_s = min(60.0, self._retry_policy.backoff_base_s * 2 ** (n_attempts - 1)) * random.uniform(
                    0.5, 1.5
                )
                await asyncio.sleep(delay_s if fault.retry_after_s is None else fault.retry_after_s)
            except FetchRefused as error:
                raise FetchError(self._source, error.message, file=remote_file.name, hint=error.hint) from error
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise InfrastructureError(
                        f"the disk of {self._folder} is full", hint="make room and run again"
                    ) from error
                raise

    async def _attempt_download(self, remote_file: RemoteFile, partial: PartialFile) -> None:
        if urlsplit(remote_file.url).scheme == "file":
            await asyncio.to_thread(self._copy_local, remote_file, partial)
            return
        offset = partial.size
        if offset > (remote_file.size or MAX_FILE_BYTES) or not _can_resume(remote_file, partial):
            partial.discard()
            offset = 0
        if offset and offset == remote_file.size:
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and partial.validator:
            headers["If-Range"] = partial.validator
        async with connection.open_response(
            self._session, remote_file.url, headers, remote_file.auth_headers
        ) as response:
            if response.status == 416 or (response.status == 206 and not _is_resumed_at(response, offset)):
                partial.discard()
                raise TransientError(f"{response.url.host} cannot send the rest")
            if connection.is_html(response, remote_file.name):
                raise FetchRefused(
                    f"{response.url.host} gives a web page instead of data",
                    hint="the URL is of a page or needs a login: download the file by hand",
                )
            if response.status == 200:
                self._meter.extend_total(offset)
                offset = 0
                partial.start(connection.get_validator(response))
            self._check_length(remote_file, response, offset)
            max_bytes = remote_file.size if remote_file.size is not None else MAX_FILE_BYTES
            await asyncio.to_thread(partial.rehash)
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                offset += len(chunk)
                if offset > max_bytes:
                    partial.discard()
                    raise FetchRefused(f"{response.url.host} sends more than the expected {format_bytes(max_bytes)}")
                partial.append(chunk)  # some 100 kB at a time: cheaper than handing it to a thread
                self._meter.add(len(chunk))
        if remote_file.size is not None and offset < remote_file.size:
            raise TransientError(f"the connection ended after {offset} of {remote_file.size} bytes")

    def _check_length(self, remote_file: RemoteFile, response: aiohttp.ClientResponse, offset: int) -> None:
        content_length = response.content_length
        if content_length is None:
            if remote_file.size is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
                raise FetchRefused(
                    f"{response.url.host} gives neither the file's length nor its end, so a cut could not be noticed",
                    hint="download it by hand and set `path:` in the catalog entry to its folder",
                )
            return
        if remote_file.size is not None and offset + content_length != remote_file.size:
            raise FetchRefused(
                f"{response.url.host} has {offset + content_length} bytes where {remote_file.size} were expected",
                hint="`mvl sources lock` looks up what is there now",
            )
        check_disk_space(self._folder, content_length)

    def _copy_local(self, remote_file: RemoteFile, partial: PartialFile) -> None:
        origin = Path(unquote(urlsplit(remote_file.url).path))
        partial.start(None)
        try:
            with origin.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    partial.append(chunk)
                    self._meter.add(len(chunk))
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise FetchRefused(f"{origin} cannot be read: {error.strerror}") from error

    def _verify_and_finalize(self, remote_file: RemoteFile, partial: PartialFile) -> str:
        if not partial.path.exists():  # an empty file whose size was known
            partial.start(None)
        digest = partial.compute_sha256()
        mismatch = find_mismatch(remote_file, partial.path, digest)
        if mismatch is None:
            partial.finalize(self._folder / remote_file.name)
            return digest
        partial.discard()
        raise FetchError(
            self._source,
            f"what arrived is not the expected file ({mismatch}) and was removed",
            file=remote_file.name,
            hint="run it again; if that does not help, `mvl sources lock` looks up what is there now",
        )


def find_mismatch(remote_file: RemoteFile, path: Path, digest: str) -> str | None:
    """Return how a file with the sha256 `digest` differs from what is known of it; None if it does not."""
    size = path.stat().st_size
    if remote_file.size not in (None, size):
        return f"{size} bytes, expected {remote_file.size}"
    if remote_file.sha256 not in (None, digest):
        return f"sha256 {digest}, expected {remote_file.sha256}"
    if (
        remote_file.sha256 is None
        and remote_file.git_sha1 is not None
        and (git_sha1 := _compute_git_sha1(path)) != remote_file.git_sha1
    ):
        return f"git object {git_sha1}, expected {remote_file.git_sha1}"
    return None


def compute_sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_disk_space(folder: Path, required_bytes: int) -> None:
    """Raise `InfrastructureError` if fewer bytes than required are free on the disk of `folder`."""
    existing_folder = folder
    while not existing_folder.exists():
        existing_folder = existing_folder.parent
    free_bytes = shutil.disk_usage(existing_folder).free
    if required_bytes > free_bytes:
        raise InfrastructureError(
            f"{format_bytes(required_bytes)} are to be fetched into {folder}, "
            f"but only {format_bytes(free_bytes)} are free",
            hint="make room, set MVL_HOME or the source's `path:` to a larger disk, "
            "or set `keep_archives: false` in the profile and fetch source by source",
        )


def _can_resume(remote_file: RemoteFile, partial: PartialFile) -> bool:
    """Return whether the server (by its validator) or a checksum can tell that the part is of the same file."""
    return bool(partial.validator or remote_file.sha256 or remote_file.git_sha1)


def _is_resumed_at(response: aiohttp.ClientResponse, offset: int) -> bool:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == offset


def _compute_git_sha1(path: Path) -> str:
    """Return git's object id of the file, the hub's checksum of small files (below 10 MB, so read whole)."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
