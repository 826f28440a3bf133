"""One file, whole and checked, or not there at all.

What arrives goes to a part file in `<folder>/.fetch/`, with the server's validator beside it. A later try, also of
another process after kill -9, asks for the rest with `Range` and `If-Range`; a server that has another file by now
sends that one whole. The file takes its name only after its size and checksum were found right, by one rename.

`huggingface_hub` is not asked to carry files: it downloads to a name of each process's own, so that a download that
was killed begins anew.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import random
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from mvl_assets.errors import MachineError
from mvl_assets.fetch import connection
from mvl_assets.fetch.connection import TryAgain
from mvl_assets.fetch.errors import FetchError, Unreachable
from mvl_assets.fetch.progress import Meter, size_text
from mvl_assets.fetch.state import PARTS

CHUNK = 1 << 20
LARGEST = 1 << 42
"""Bytes after which a file whose size nobody told is given up: 4 TiB."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file to bring: its place below the folder, where it comes from, and what is known of it beforehand.

    `secret` are headers for the first host only; they are never shown.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    secret: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a file is asked for without getting a byte further, and the first pause between two tries (s)."""

    tries: int = 8
    pause: float = 1.0


class Part:
    """What has arrived of one file, and the running checksum over it."""

    def __init__(self, folder: Path, item: Item) -> None:
        # Named by its content where that is known, so the beginning of another commit's file is never gone on with.
        content = item.sha256 or item.git_sha1 or item.url
        stem = hashlib.sha256(f"{item.name}\0{content}".encode()).hexdigest()[:32]
        self.path = folder / PARTS / f"{stem}.part"
        self._note = folder / PARTS / f"{stem}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._digest, self._digested = hashlib.sha256(), 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """What the server called the file of which this is the beginning."""
        try:
            return str(json.loads(self._note.read_text(encoding="utf-8"))["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, validator: str | None) -> None:
        """Forgets what is there; a file of this validator begins."""
        self.drop()
        self.path.touch()
        if validator is not None:
            self._note.write_text(json.dumps({"validator": validator}), encoding="utf-8")

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._digest, self._digested = hashlib.sha256(), 0

    def append(self, chunk: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(chunk)
        self._digest.update(chunk)
        self._digested += len(chunk)

    def catch_up(self) -> None:
        """Takes what an earlier process left into the checksum."""
        if self._digested != self.size:
            self._digest, self._digested = hashlib.sha256(), 0
            with self.path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    self._digest.update(chunk)
                    self._digested += len(chunk)

    def sha256(self) -> str:
        self.catch_up()
        return self._digest.hexdigest()

    def take(self, place: Path) -> None:
        """Gives the whole file its name, so that it survives a power cut or is not there."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        place.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(place)
        handle = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self._note.unlink(missing_ok=True)


class Carrier:
    """Brings the files of one source into its folder."""

    def __init__(
        self, source: str, folder: Path, session: aiohttp.ClientSession, meter: Meter, patience: Patience
    ) -> None:
        self._source, self._folder, self._session = source, folder, session
        self._meter, self._patience = meter, patience

    async def bring(self, item: Item) -> str:
        """Brings one file and returns its sha256. Raises `FetchError`, `MachineError` for a full disk."""
        part = Part(self._folder, item)
        tries = 0
        while True:
            before = part.size
            try:
                await self._attempt(item, part)
                return await asyncio.to_thread(self._finish, item, part)
            except TryAgain as fault:
                tries = 1 if part.size > before else tries + 1
                if tries >= self._patience.tries:
                    hint = "run it again: what has arrived is kept" if part.size else "run it again later"
                    raise FetchError(self._source, fault.reason, file=item.name, hint=hint) from fault
                pause = min(60.0, self._patience.pause * 2 ** (tries - 1)) * random.uniform(0.5, 1.5)
                await asyncio.sleep(pause if fault.wait is None else fault.wait)
            except Unreachable as error:
                raise FetchError(self._source, error.message, file=item.name, hint=error.hint) from error
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise MachineError(f"the disk of {self._folder} is full", hint="make room and run again") from error
                raise

    async def _attempt(self, item: Item, part: Part) -> None:
        if urlsplit(item.url).scheme == "file":
            await asyncio.to_thread(self._copy, item, part)
            return
        begun = part.size
        if begun > (item.size or LARGEST) or not _can_go_on(item, part):
            part.drop()
            begun = 0
        if begun and begun == item.size:
            return
        headers = {"Range": f"bytes={begun}-"} if begun else {}
        if begun and part.validator:
            headers["If-Range"] = part.validator
        async with connection.answer(self._session, item.url, headers, item.secret) as got:
            if got.status == 416 or (got.status == 206 and not _goes_on_at(got, begun)):
                part.drop()
                raise TryAgain(f"{got.url.host} cannot send the rest")
            if connection.is_page(got, item.name):
                raise Unreachable(
                    f"{got.url.host} gives a web page instead of data",
                    hint="the address is of a page, or asks for a login: download the file by hand",
                )
            if got.status == 200:
                self._meter.begin_again(begun)
                begun = 0
                part.begin(connection.validator_of(got))
            self._check_length(item, got, begun)
            bound = item.size if item.size is not None else LARGEST
            await asyncio.to_thread(part.catch_up)
            async for chunk in got.content.iter_chunked(CHUNK):
                begun += len(chunk)
                if begun > bound:
                    part.drop()
                    raise Unreachable(f"{got.url.host} sends more than the {size_text(bound)} it is said to hold")
                part.append(chunk)  # some 100 kB at a time: less work than handing it to a thread
                self._meter.add(len(chunk))
        if item.size is not None and begun < item.size:
            raise TryAgain(f"the connection ended after {begun} of {item.size} bytes")

    def _check_length(self, item: Item, got: aiohttp.ClientResponse, begun: int) -> None:
        told = got.content_length
        if told is None:
            if item.size is None and got.headers.get("Transfer-Encoding", "").lower() != "chunked":
                raise Unreachable(
                    f"{got.url.host} tells neither the file's length nor its end, so nobody can say when it is whole",
                    hint="download it by hand and name its folder with `path:` in the catalog entry",
                )
            return
        if item.size is not None and begun + told != item.size:
            raise Unreachable(
                f"{got.url.host} has {begun + told} bytes where {item.size} were expected",
                hint="`mvl sources lock` looks up what is there now",
            )
        check_room(self._folder, told)

    def _copy(self, item: Item, part: Part) -> None:
        origin = Path(unquote(urlsplit(item.url).path))
        part.begin(None)
        try:
            with origin.open("rb") as file:
                while chunk := file.read(CHUNK):
                    part.append(chunk)
                    self._meter.add(len(chunk))
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise Unreachable(f"{origin} cannot be read: {error.strerror}") from error

    def _finish(self, item: Item, part: Part) -> str:
        if not part.path.exists():  # an empty file whose size was known
            part.begin(None)
        digest = part.sha256()
        wrong = difference(item, part.path, digest)
        if wrong is None:
            part.take(self._folder / item.name)
            return digest
        part.drop()
        raise FetchError(
            self._source,
            f"what arrived is not what was asked for ({wrong}) and was removed",
            file=item.name,
            hint="run it again; if it stays so, `mvl sources lock` looks up what is there now",
        )


def difference(item: Item, path: Path, digest: str) -> str | None:
    """How a file (of this sha256) differs from what is known of the item; None when it does not."""
    size = path.stat().st_size
    if item.size not in (None, size):
        return f"{size} bytes, expected {item.size}"
    if item.sha256 not in (None, digest):
        return f"sha256 {digest}, expected {item.sha256}"
    if item.sha256 is None and item.git_sha1 is not None and (found := _git_sha1(path)) != item.git_sha1:
        return f"git object {found}, expected {item.git_sha1}"
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_room(folder: Path, wanted: int) -> None:
    """Raises `MachineError` when fewer bytes are free where `folder` is, or will be."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if wanted > free:
        raise MachineError(
            f"{size_text(wanted)} are to be fetched into {folder}, and {size_text(free)} are free there",
            hint="make room, let MVL_HOME or the source's `path:` name a larger disk, "
            "or set `keep_archives: false` in the profile and fetch source by source",
        )


def _can_go_on(item: Item, part: Part) -> bool:
    """A beginning is of use when the server can say that it is still of the same file, or a checksum will."""
    return bool(part.validator or item.sha256 or item.git_sha1)


def _goes_on_at(got: aiohttp.ClientResponse, begun: int) -> bool:
    match = re.match(r"bytes (\d+)-", got.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == begun


def _git_sha1(path: Path) -> str:
    """What git calls a file of this content; the hub names its small files so. Read whole: these are below 10 MB."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
