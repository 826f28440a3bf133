r"""LLaVA-Video-178K: JSON arrays per duration and kind of question, and video files in folders.

    [{"id": "1", "video": "academic_source/a/1.mp4", "data_source": "0_30_s_academic_v0_1",
      "conversations": [{"from": "human", "value": "<image>\nWhat happens?"}, {"from": "gpt", "value": "..."}]}, ...]

The marker of a video is written `<image>` in these files; samples carry `<video>`. Videos are looked for relative to
the JSON file's folder, the source's folder and `videos/`; the archives they come in have to be unpacked first. Dataset
card: lmms-lab/LLaVA-Video-178K.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, relative, video_at
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.rows import Row, built, rows_of, turns_of, with_video_marker
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.catalog import SourceSpec


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "*.json", "*/*.json"):
        folder = path.parent.relative_to(root).as_posix()
        for row in rows_of(relative(root, path), elements(path), "id"):
            yield built(row, partial(_sample, root, (folder, "", "videos")))


def _sample(root: Path, folders: tuple[str, ...], row: Row) -> Sample:
    turns = with_video_marker(turns_of(row.value.get("conversations")))
    video = video_at(root, row.value.get("video"), folders)
    return Sample(row.file, row.position, turns, row.native_id, video=video)
