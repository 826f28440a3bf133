r"""VideoInstruct-100K (Video-ChatGPT): questions and answers about ActivityNet's videos.

    [{"q": "What is the man doing?", "a": "He is shovelling snow.", "video_id": "v_k_ZXmr8pmrs"},
     {"q": "...", "a": "...", "video_id": "..."}, ...]

One sample a question; a video has several and there are no ids. `video_id` is the video's name without its ending
(mp4, mkv, webm, ...), in the source's folder, `videos/` or `activitynet_videos/`, as a file or packed. Checked against
the card of MBZUAI/VideoInstruct-100K and data/README.md of mbzuai-oryx/Video-ChatGPT.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, relative, video_by_id
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.rows import Row, built, rows_of, turns_of, with_video_marker
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

FOLDERS = ("", "videos", "activitynet_videos")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "*.json"):
        for row in rows_of(relative(root, path), elements(path)):
            yield built(row, partial(_sample, root))


def _sample(root: Path, row: Row) -> Sample:
    asked = {"from": "human", "value": row.value.get("q")}
    turns = turns_of([asked, {"from": "gpt", "value": row.value.get("a")}])
    video = video_by_id(root, row.value.get("video_id"), FOLDERS)
    return Sample(row.file, row.position, with_video_marker(turns), video=video)
