r"""LLaVA's JSON: an array in `*.json`, or one object a line in `*.jsonl`; pictures are files beside it.

    [{"id": "1", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                                                          {"from": "gpt", "value": "A cat."}]}, ...]

`image` is a path, a list of paths, or absent (text only); `video` a path. Paths are relative to the source's folder or
to `images/` (`videos/`) in it; what they name may still be packed (`archives`). Ids are strings or integers and often
repeat. Files lie in the source's folder, or where the catalog's `hub.files` says. A `*.json` that begins with an object
is read as JSON Lines, as some are. Specification: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers import json_stream
from mvl_assets.readers.files import files_below, picture_at, relative, video_at
from mvl_assets.readers.json_stream import BadItem, Item
from mvl_assets.readers.rows import Row, RowError, built, rows_of, turns_of, with_markers, with_video_marker
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    make = partial(sample_of, root)
    for row in rows(source, root):
        yield built(row, make)


def rows(source: SourceSpec, root: Path) -> Iterator[Row | Broken]:
    """The rows as the files have them; no picture is looked for."""
    listed = source.hub.files if source.hub is not None and source.hub.files else ()
    deeper = [pattern for pattern in listed if pattern.endswith((".json", ".jsonl"))]
    for path in files_below(source.slug, root, "*.json", "*.jsonl", *deeper):
        yield from rows_of(relative(root, path), items(path), "id")


def items(path: Path) -> Iterator[Item | BadItem]:
    """The rows of a file that is an array or JSON Lines."""
    by_line = path.suffix == ".jsonl" or json_stream.starts_with(path) == "{"
    return json_stream.lines(path) if by_line else json_stream.elements(path)


def own_rows(found: Iterator[Item | BadItem], is_own: Callable[[Mapping[str, Any]], bool]) -> Iterator[Item | BadItem]:
    """Of a file that several sources share the rows of one, numbered among themselves; what is no object stays."""
    position = 0
    for item in found:
        if isinstance(item, BadItem):
            yield BadItem(position, item.error, item.message, item.key)
        elif isinstance(item.value, Mapping) and not is_own(item.value):
            continue
        else:
            yield Item(position, item.value, item.key)
        position += 1


def sample_of(
    root: Path, row: Row, images: Sequence[str] = ("", "images"), videos: Sequence[str] = ("", "videos")
) -> Sample:
    """A LLaVA row; `images` and `videos` are the folders to look in. Raises `RowError`."""
    turns = turns_of(row.value.get("conversations"))
    image, video = row.value.get("image"), row.value.get("video")
    if video:
        if image:
            raise RowError("image_and_video", "the row has both pictures and a video")
        found = video_at(root, video, videos)
        return Sample(row.file, row.position, with_video_marker(turns), row.native_id, video=found)
    names = image if isinstance(image, list) else [image] if image else []
    turns = with_markers(turns, len(names))
    pictures = tuple(picture_at(root, name, images) for name in names)
    return Sample(row.file, row.position, turns, row.native_id, pictures)
