r"""LLaVA's JSON: an array in `*.json`, or one object a line in `*.jsonl`; pictures are files beside it.

    [{"id": "1", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                                                          {"from": "gpt", "value": "A cat."}]}, ...]

`image` is a path, a list of paths, or absent (text only); `video` a path. Paths are relative to the source's folder or
to `images/` (`videos/`) in it. Ids are strings or integers and often repeat. A `*.json` that begins with an object is
read as JSON Lines, as some are. Specification: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers import json_stream
from mvl_assets.readers.files import files_below, picture_at, relative, video_at
from mvl_assets.readers.rows import Row, RowError, built, rows_of, turns_of, with_markers, with_video_marker
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "*.json", "*.jsonl"):
        by_line = path.suffix == ".jsonl" or json_stream.starts_with(path) == "{"
        items = json_stream.lines(path) if by_line else json_stream.elements(path)
        for row in rows_of(relative(root, path), items, "id"):
            yield built(row, partial(_sample, root))


def _sample(root: Path, row: Row) -> Sample:
    turns = turns_of(row.value.get("conversations"))
    image, video = row.value.get("image"), row.value.get("video")
    if video:
        if image:
            raise RowError("image_and_video", "the row has both pictures and a video")
        found = video_at(root, video, ("", "videos"))
        return Sample(row.file, row.position, with_video_marker(turns), row.native_id, video=found)
    names = image if isinstance(image, list) else [image] if image else []
    turns = with_markers(turns, len(names))
    pictures = tuple(picture_at(root, name) for name in names)
    return Sample(row.file, row.position, turns, row.native_id, pictures)
