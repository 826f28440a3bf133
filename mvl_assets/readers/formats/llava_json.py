r"""LLaVA's JSON: an array in `*.json`, or one object per line in `*.jsonl`; images are files next to it.

    [{"id": "1", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                                                          {"from": "gpt", "value": "A cat."}]}, ...]

`image` is a path, a list of paths, or absent (text alone); `video` a path. Paths are relative to the source's folder or
to `images/` (`videos/`) in it; what they name may be in an archive (`archives`). Ids are strings or integers and often
repeat. Files are in the source's folder, or where `hub.files` of the catalog says. A `*.json` that begins with an
object is read as JSON Lines, as some are. Specification: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.text_line import parse_text_line
from mvl_assets.readers.files import format_relative_path, list_source_files, resolve_image, resolve_video
from mvl_assets.readers.format import ARCHIVE_FILES, JSON_FILES, Format, make_key_reader
from mvl_assets.readers.parsers import json_stream
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem
from mvl_assets.readers.rows import (
    Row,
    add_image_markers,
    add_video_marker,
    build_sample,
    parse_turns,
    to_rows,
)
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    to_sample = partial(to_llava_sample, root)
    for path in _list_files(source, root):
        file = format_relative_path(root, path)
        if not _is_json_lines(path):
            for row in to_rows(file, json_stream.iter_elements(path), "id"):
                yield build_sample(row, to_sample)
            continue
        for position, line in json_stream.iter_raw_lines(path):
            if isinstance(line, bytes) and (sample := parse_text_line(file, position, line)) is not None:
                yield sample
                continue
            item = json_stream.parse_line(line, position) if isinstance(line, bytes) else line
            for row in to_rows(file, [item], "id"):
                yield build_sample(row, to_sample)


def read_rows(source: SourceSpec, root: Path) -> Iterator[Row | RejectedRow]:
    """Yield the rows as the files have them; no image is looked for."""
    for path in _list_files(source, root):
        yield from to_rows(format_relative_path(root, path), iter_items(path), "id")


def _list_files(source: SourceSpec, root: Path) -> list[Path]:
    hub_patterns = source.hub.files if source.hub is not None and source.hub.files else ()
    hub_json_patterns = [pattern for pattern in hub_patterns if pattern.endswith((".json", ".jsonl"))]
    return list_source_files(source, root, "*.json", "*.jsonl", *hub_json_patterns)


def iter_items(path: Path) -> Iterator[Item | RejectedItem]:
    """Yield the rows of a file that is an array or JSON Lines."""
    return json_stream.iter_lines(path) if _is_json_lines(path) else json_stream.iter_elements(path)


def _is_json_lines(path: Path) -> bool:
    return path.suffix == ".jsonl" or json_stream.peek_first_char(path) == "{"


def filter_shared_file(
    items: Iterator[Item | RejectedItem], matches_source: Callable[[Mapping[str, Any]], bool]
) -> Iterator[Item | RejectedItem]:
    """Yield the rows of one source from a file that several share, numbered from 0.

    Elements that are not objects are kept, so that they become rejects.
    """
    position = 0
    for item in items:
        if isinstance(item, RejectedItem):
            yield RejectedItem(position, item.error, item.message, item.key)
        elif isinstance(item.value, Mapping) and not matches_source(item.value):
            continue
        else:
            yield Item(position, item.value, item.key)
        position += 1


def to_llava_sample(
    root: Path, row: Row, image_folders: Sequence[str] = ("", "images"), video_folders: Sequence[str] = ("", "videos")
) -> Sample:
    """Return a LLaVA row as a sample.

    Args:
        root: Folder of the source.
        row: Row with `conversations` and `image` or `video`.
        image_folders: Folders of the root to look for images in.
        video_folders: Folders of the root to look for the video in.

    Raises:
        RejectError: The row cannot be used.
    """
    turns = parse_turns(row.value.get("conversations"))
    image, video = row.value.get("image"), row.value.get("video")
    if video:
        if image:
            raise RejectError("image_and_video", "the row has both an image and a video")
        resolved_video = resolve_video(root, video, video_folders)
        return Sample(row.file, row.position, add_video_marker(turns), row.native_id, video=resolved_video)
    if not image:
        return Sample(row.file, row.position, add_image_markers(turns, 0), row.native_id)
    names = image if isinstance(image, list) else [image]
    turns = add_image_markers(turns, len(names))
    encoded_images = tuple(resolve_image(root, name, image_folders) for name in names)
    return Sample(row.file, row.position, turns, row.native_id, encoded_images)


FORMAT = Format(
    row_files=JSON_FILES,
    media_files=ARCHIVE_FILES,
    description="the *.json or *.jsonl of conversations and the images that its `image` names",
    read=read,
    read_keys=make_key_reader(read_rows),
)
