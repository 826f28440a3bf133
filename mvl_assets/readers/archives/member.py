"""A file inside an archive, as bytes or as a stream."""

from __future__ import annotations

import io
import lzma
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from mvl_assets.common.scratch_location import open_scratch_file
from mvl_assets.readers.archives.entry import Entry
from mvl_assets.readers.archives.parts import StreamSlice, open_joined
from mvl_assets.readers.archives.zip import LOCAL_HEADER

_DECOMPRESSION_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file inside an archive.

    Attributes:
        archive: Name of the archive below the source's root.
        paths: Files that hold the bytes of the archive.
        entry: Where the member is in them.
    """

    archive: str
    paths: tuple[Path, ...]
    entry: Entry

    def __str__(self) -> str:
        return f"{self.archive}: {self.entry.name}"

    def read(self, max_bytes: int) -> bytes:
        """Return the bytes.

        Raises:
            ValueError: There are more than `max_bytes`.
            OSError: They cannot be read or unpacked.
        """
        if self.entry.size > max_bytes:
            raise ValueError(f"{self} is larger than {max_bytes} bytes")
        try:
            with self._open_decompressed() as stream:
                data = stream.read(self.entry.size + 1)
        except _DECOMPRESSION_ERRORS as error:
            raise OSError(f"{self} cannot be unpacked: {error}") from error
        if len(data) != self.entry.size:
            raise OSError(f"{self} has {len(data)} bytes where {self.entry.size} were announced")
        return data

    def open_seekable(self) -> BinaryIO:
        """Return the member as a seekable file; a compressed one is first unpacked to an unnamed file on disk.

        Raises:
            OSError: It cannot be unpacked.
        """
        stream = self._open_decompressed()
        if isinstance(stream, StreamSlice):
            return io.BufferedReader(stream)
        with stream:
            spool_file = cast(BinaryIO, open_scratch_file())  # the caller closes it
            try:
                shutil.copyfileobj(stream, spool_file, 1 << 20)
            except _DECOMPRESSION_ERRORS as error:
                spool_file.close()
                raise OSError(f"{self} cannot be unpacked: {error}") from error
            spool_file.seek(0)
            return spool_file

    def _open_decompressed(self) -> StreamSlice | zipfile.ZipExtFile:
        """Open the member's bytes. `ZipExtFile` stops at the announced size and checks the CRC. Raises `OSError`."""
        stream = open_joined(self.paths)
        try:
            if self.entry.method is None:
                return StreamSlice(stream, self.entry.offset, self.entry.size)
            data_offset = _find_data_offset(stream, self.entry.offset)
            if self.entry.method == zipfile.ZIP_STORED:
                return StreamSlice(stream, data_offset, self.entry.size)
            info = zipfile.ZipInfo(self.entry.name)
            info.compress_type, info.CRC = self.entry.method, self.entry.crc
            info.compress_size, info.file_size = self.entry.compressed_size, self.entry.size
            stream.seek(data_offset)
            return zipfile.ZipExtFile(stream, "r", info, None, True)
        except _DECOMPRESSION_ERRORS as error:
            stream.close()
            raise OSError(f"{self} cannot be unpacked: {error}") from error
        except BaseException:
            stream.close()
            raise


def _find_data_offset(stream: BinaryIO, header_offset: int) -> int:
    """Find where the data start; name and extra field before them may differ in length from the directory's."""
    stream.seek(header_offset)
    header = stream.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile("there is no member where the directory says")
    *_, name_size, extra_size = LOCAL_HEADER.unpack(header)
    return header_offset + LOCAL_HEADER.size + int(name_size) + int(extra_size)
