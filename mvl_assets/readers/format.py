"""The declaration `FORMAT` of each module of `formats/`: which files a native format has and how rows are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mvl_assets.readers.rows import Row
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

JSON_FILES = ("*.json", "*.jsonl")
VIDEO_FILES = ("*.mp4", "*.MP4", "*.mkv", "*.webm", "*.avi", "*.mov")
ARCHIVE_FILES = ("*.tar", "*.tar.*", "*.tar_*", "*.tgz", "*.zip", "*.zip.*", "*.z[0-9][0-9]")


class RowKey(NamedTuple):
    """The identity of a row, without its content."""

    file: str
    position: int
    native_id: str | None


Reader = Callable[["SourceSpec", Path], Iterator[Sample | RejectedRow]]
KeyReader = Callable[["SourceSpec", Path], Iterator[RowKey]]
RowReader = Callable[["SourceSpec", Path], Iterator[Row | Sample | RejectedRow]]


@dataclass(frozen=True, slots=True)
class Format:
    """A native format. Its name is the name of the module that declares it.

    Patterns are matched against paths below the source's folder; their `*` also matches across folders.

    Attributes:
        row_files: Patterns of the files that hold the rows. A source without any such file counts as missing.
        description: The files in words, for a person who puts them into the source's folder.
        read: Yields the samples and rejects of a source, `(source, root)`. Opens files below `root` only, holds one row
            at a time, decodes no pixels and writes nothing. A row that cannot be read is yielded as a `RejectedRow`.
        media_files: Patterns of the images, videos and archives that the rows refer to.
        read_keys: Yields the keys of the rows that `read` yields, in the same order, as cheaply as the format allows.
            The rows of a file come together and count from 0; a `broken_file` row at the end of a file may be missing.
            None where the keys cannot be had without reading the rows.
    """

    row_files: tuple[str, ...]
    description: str
    read: Reader
    media_files: tuple[str, ...] = ()
    read_keys: KeyReader | None = None


def make_key_reader(read_rows: RowReader) -> KeyReader:
    """Return a reader that yields the keys of the rows of `read_rows`."""

    def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
        for row in read_rows(source, root):
            yield RowKey(row.file, row.position, row.native_id)

    return read_keys
