r"""LLaVA-Video-178K: JSON arrays per duration and kind of question, and videos in folders or numbered archives.

    [{"id": "1", "video": "academic_source/a/1.mp4", "data_source": "0_30_s_academic_v0_1",
      "conversations": [{"from": "human", "value": "<image>\nWhat happens?"}, {"from": "gpt", "value": "..."}]}, ...]

The marker of a video is written `<image>` in these files; samples carry `<video>`. Videos are looked for relative to
the JSON file's folder, the source's folder and `videos/`, as files or in `0_30_s_academic_v0_1_videos_1.tar.gz` and its
like. Dataset card: lmms-lab/LLaVA-Video-178K.

LLaVA-Hound's part of it (`llava_hound/sharegptvideo_qa_255k_processed.json`, or the `*.jsonl` of
ShareGPTVideo/train_video_and_instruction) has the same rows, but `video` names a folder of frames, `v_abc` of
`c01_0001.jpeg`, ..., in `train_300k/chunk_0.tar.gz` or unpacked, with or without folders before its own name. At most
32 frames are taken, evenly spread (LLaVA-VL/LLaVA-NeXT, llava/train/train.py, `shareVideoGPTV`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.files import format_relative_path, list_source_files, resolve_video
from mvl_assets.readers.format import ARCHIVE_FILES, JSON_FILES, VIDEO_FILES, Format
from mvl_assets.readers.formats.llava_json import iter_items
from mvl_assets.readers.rows import Row, add_video_marker, build_sample, parse_turns, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample, Video

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

FRAME_FOLDERS = ("train_300k", "train_600k", "frames")
"""Where LLaVA-Hound's folders of frames are; rows may give a path before their name."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_source_files(source, root, "*.json", "*.jsonl", "*/*.json", "*/*.jsonl"):
        folder = path.parent.relative_to(root).as_posix()
        for row in to_rows(format_relative_path(root, path), iter_items(path), "id"):
            yield build_sample(row, partial(_to_sample, root, (folder, "", "videos")))


def _to_sample(root: Path, folders: tuple[str, ...], row: Row) -> Sample:
    turns = add_video_marker(parse_turns(row.value.get("conversations")))
    return Sample(
        row.file, row.position, turns, row.native_id, video=_resolve_row_video(root, row.value.get("video"), folders)
    )


def _resolve_row_video(root: Path, name: object, folders: tuple[str, ...]) -> Video:
    try:
        return resolve_video(root, name, (*folders, *FRAME_FOLDERS))
    except RejectError as error:
        base_name = name.rstrip("/").rpartition("/")[2] if isinstance(name, str) else ""
        if error.code != "missing_video" or "." in base_name:
            raise
        return resolve_video(root, base_name, FRAME_FOLDERS)


FORMAT = Format(
    row_files=JSON_FILES,
    media_files=(*ARCHIVE_FILES, *VIDEO_FILES),
    description="the *.json or *.jsonl files and the video tars, or their folders",
    read=read,
)
