r"""LLaVA-Hound: rows of LLaVA-Video-178K, among whose files it is published, with a folder of frames per video.

    [{"id": "1", "video": "v_abc", "conversations": [{"from": "human", "value": "<image>\nWhat happens?"}, ...]}, ...]
    train_300k/v_abc/c01_0001.jpeg ...   or   train_300k/chunk_0.tar.gz

Read like `llava_video`; see there for where folders are looked for and how many frames are taken.
"""

from __future__ import annotations

from mvl_assets.readers.format import ARCHIVE_FILES, JSON_FILES, Format
from mvl_assets.readers.formats import llava_video

FORMAT = Format(
    row_files=JSON_FILES,
    media_files=ARCHIVE_FILES,
    description="the *.json of conversations and one folder of frames per video",
    read=llava_video.read,
)
