"""A file inside an archive, as bytes or as a stream."""

from __future__ import annotations

import io
import lzma
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from mvl_assets.readers.archives.entry import Entry
from mvl_assets.readers.archives.parts import Window, opened
from mvl_assets.readers.archives.zip import LOCAL

_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Member:
    """`archive` is its name below the source's root, `paths` the files that hold its bytes."""

    archive: str
    paths: tuple[Path, ...]
    entry: Entry

    def __str__(self) -> str:
        return f"{self.archive}: {self.entry.name}"

    def read(self, limit: int) -> bytes:
        """The bytes. Raises `ValueError` above `limit` bytes, `OSError` when they cannot be read or unpacked."""
        if self.entry.size > limit:
            raise ValueError(f"{self} is larger than {limit} bytes")
        try:
            with self._unpacking() as stream:
                data = stream.read(self.entry.size + 1)
        except _BROKEN as error:
            raise OSError(f"{self} cannot be unpacked: {error}") from error
        if len(data) != self.entry.size:
            raise OSError(f"{self} has {len(data)} bytes where {self.entry.size} were announced")
        return data

    def seekable(self) -> BinaryIO:
        """The member as a file to jump about in; what is packed is unpacked to a nameless file on disk first.

        Raises `OSError` when it cannot be unpacked.
        """
        stream = self._unpacking()
        if isinstance(stream, Window):
            return io.BufferedReader(stream)
        with stream:
            whole = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  # the caller closes it
            try:
                shutil.copyfileobj(stream, whole, 1 << 20)
            except _BROKEN as error:
                whole.close()
                raise OSError(f"{self} cannot be unpacked: {error}") from error
            whole.seek(0)
            return whole

    def _unpacking(self) -> Window | zipfile.ZipExtFile:
        """The member's own bytes. `ZipExtFile` stops at the announced size and checks the sum. Raises `OSError`."""
        stream = opened(self.paths)
        try:
            if self.entry.method is None:
                return Window(stream, self.entry.offset, self.entry.size)
            begin = _behind_local_header(stream, self.entry.offset)
            if self.entry.method == zipfile.ZIP_STORED:
                return Window(stream, begin, self.entry.size)
            info = zipfile.ZipInfo(self.entry.name)
            info.compress_type, info.CRC = self.entry.method, self.entry.crc
            info.compress_size, info.file_size = self.entry.stored, self.entry.size
            stream.seek(begin)
            return zipfile.ZipExtFile(stream, "r", info, None, True)
        except _BROKEN as error:
            stream.close()
            raise OSError(f"{self} cannot be unpacked: {error}") from error
        except BaseException:
            stream.close()
            raise


def _behind_local_header(stream: BinaryIO, at: int) -> int:
    """Where the data begin; the name and extra field before them may differ in length from the directory's."""
    stream.seek(at)
    header = stream.read(LOCAL.size)
    if len(header) < LOCAL.size or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile("there is no member where the directory says")
    *_, name_size, extra_size = LOCAL.unpack(header)
    return at + LOCAL.size + int(name_size) + int(extra_size)
