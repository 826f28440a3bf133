r"""VideoInstruct-100K (Video-ChatGPT): questions and answers about ActivityNet's videos.

    [{"q": "What is the man doing?", "a": "He is shovelling snow.", "video_id": "v_k_ZXmr8pmrs"},
     {"q": "...", "a": "...", "video_id": "..."}, ...]

One sample per question; a video has several and there are no ids. `video_id` is the video's name without its ending
(mp4, mkv, webm, ...), in the source's folder, `videos/` or `activitynet_videos/`, as a file or in an archive. Checked
against the card of MBZUAI/VideoInstruct-100K and data/README.md of mbzuai-oryx/Video-ChatGPT.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_video_by_id
from mvl_assets.readers.format import ARCHIVE_FILES, VIDEO_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_elements
from mvl_assets.readers.rows import Row, add_video_marker, build_sample, parse_turns, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

VIDEO_FOLDERS = ("", "videos", "activitynet_videos")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_data_files(source.slug, root, "*.json"):
        for row in to_rows(format_relative_path(root, path), iter_elements(path)):
            yield build_sample(row, partial(_to_sample, root))


def _to_sample(root: Path, row: Row) -> Sample:
    question_turn = {"from": "human", "value": row.value.get("q")}
    turns = parse_turns([question_turn, {"from": "gpt", "value": row.value.get("a")}])
    video = resolve_video_by_id(root, row.value.get("video_id"), VIDEO_FOLDERS)
    return Sample(row.file, row.position, add_video_marker(turns), video=video)


FORMAT = Format(
    row_files=("*.json",),
    media_files=(*ARCHIVE_FILES, *VIDEO_FILES),
    description="the *.json of questions and the videos",
    read=read,
)
