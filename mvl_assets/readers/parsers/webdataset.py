r"""WebDataset: a tar whose members with one name and several endings are one record (webdataset.github.io).

    000000012.jpg  000000012.json  000000012.txt  000000013.jpg  ...

A record has a field for each ending (`jpg`, `json`, `txt`, `left.png`; everything after the first dot of the name).
JSON is parsed, other text is text, an image stays in the archive until it is read. Its key, the name before the
ending with its folders, is the native id. Members of a record follow each other; a compressed tar is unpacked once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.archives import tar
from mvl_assets.readers.archives.entry import Entry
from mvl_assets.readers.archives.index import open_index
from mvl_assets.readers.archives.member import ArchiveMember
from mvl_assets.readers.archives.parts import compute_part_offsets, list_archives, open_joined
from mvl_assets.readers.files import ArchivedImage
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem, parse_json

MAX_TEXT_BYTES = 64 << 20
"""Bytes a member that is text may have."""

IMAGE_ENDINGS = frozenset(
    ("jpg", "jpeg", "jpe", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif", "heic", "heif", "jp2", "image")
)
TEXT_ENDINGS = frozenset(("txt", "text", "caption", "cls", "cls2", "transcript", "id", "index", "inx"))


def iter_records(root: Path, path: Path) -> Iterator[Item | RejectedItem]:
    """Yield the records of a tar; one that ends early ends in a `broken_file` item.

    Args:
        root: Folder of the source.
        path: Tar below it, plain or compressed.
    """
    position = 0
    name = path.relative_to(root).as_posix()
    try:
        archive = next(a for a in list_archives(path.parent) if path in a.paths)
        paths = open_index(root, archive).paths
        with open_joined(paths) as stream:
            for key, entries in _group_entries(tar.iter_entries(stream, compute_part_offsets(paths)[1])):
                yield _build_record(stream, name, paths, key, entries, position)
                position += 1
    except StopIteration:
        yield RejectedItem(0, BROKEN_FILE, "its name is not that of a tar")
    except RejectError as error:
        yield RejectedItem(position, BROKEN_FILE, f"cannot be read any further: {error.message}")
    except OSError as error:
        yield RejectedItem(position, BROKEN_FILE, f"cannot be read: {error.strerror or error}")


def split_key(name: str) -> tuple[str, str]:
    """Return the key of a member's record, and its ending in lower case."""
    file_name = PurePosixPath(name).name
    stem, _, ending = file_name.partition(".")
    return name[: len(name) - len(file_name)] + stem, ending.lower()


def _group_entries(entries: Iterator[Entry]) -> Iterator[tuple[str, list[tuple[str, Entry]]]]:
    """Yield (key, [(ending, member)]) of members that follow each other; those without an ending are passed over."""
    group_key, group = "", list[tuple[str, Entry]]()
    for entry in entries:
        key, ending = split_key(entry.name)
        if not ending or not PurePosixPath(key).name:
            continue
        if key != group_key and group:
            yield group_key, group
            group = []
        group_key = key
        group.append((ending, entry))
    if group:
        yield group_key, group


def _build_record(
    stream: BinaryIO, name: str, paths: tuple[Path, ...], key: str, entries: list[tuple[str, Entry]], position: int
) -> Item | RejectedItem:
    record: dict[str, Any] = {}
    for ending, entry in entries:
        if entry.error is not None:
            return RejectedItem(position, entry.error, f"{entry.name}: {entry.detail}", key)
        if ending in record:
            return RejectedItem(position, "ambiguous_member", f"the archive holds {entry.name} more than once", key)
        last_ending = ending.rpartition(".")[2]
        if last_ending in IMAGE_ENDINGS:
            record[ending] = ArchivedImage(entry.name, path=paths[0], member=ArchiveMember(name, paths, entry))
        elif last_ending == "json" or last_ending in TEXT_ENDINGS:
            try:
                record[ending] = _read_text(stream, entry, is_json=last_ending == "json")
            except RejectError as error:
                return RejectedItem(position, error.code, f"{entry.name}: {error.message}", key)
        else:
            record[ending] = None
    return Item(position, record, key)


def _read_text(stream: BinaryIO, entry: Entry, *, is_json: bool) -> Any:
    if entry.size > MAX_TEXT_BYTES:
        raise RejectError("too_large", f"{entry.size} bytes are more than {MAX_TEXT_BYTES}")
    stream.seek(entry.offset)
    data = stream.read(entry.size)
    if is_json:
        return parse_json(data)
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise RejectError("bad_utf8", f"byte {error.start} is not UTF-8") from error
