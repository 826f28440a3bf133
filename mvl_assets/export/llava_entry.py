r"""One mixture row as LLaVA training JSON: what LLaVA-NeXT and its descendants read.

    {"id": "3f…", "source": "chartqa", "image": "images/9a/9a1f….png",
     "conversations": [{"from": "human", "value": "<image>\n…"}, {"from": "gpt", "value": "…"}]}

`image` is a string for one image and a list for several; a video is exported as its sampled frames. `id` is the
mixture's row id, so `mvl trace` finds every exported row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.lake.errors import LakeError


def format_entry(row: Mapping[str, Any], path_by_image: Mapping[str, str]) -> str:
    """Return a row as a line of JSON.

    Raises:
        LakeError: An image of the row has no path: it is not in the lake.
    """
    missing_ids = [image_id for image_id in row["image_ids"] if image_id not in path_by_image]
    if missing_ids:
        raise LakeError(
            f"row {row['row_id']}: image {missing_ids[0]} is not in the lake",
            hint="ingest its source again, or materialise the mixture again",
        )
    return json.dumps(build_entry(row, path_by_image), ensure_ascii=False)


def build_entry(row: Mapping[str, Any], path_by_image: Mapping[str, str]) -> dict[str, Any]:
    """Return a row as LLaVA's fields."""
    n_frames = len(row["image_ids"]) if row["video"] else 0
    entry: dict[str, Any] = {"id": row["row_id"], "source": row["source"]}
    images = [path_by_image[i] for i in row["image_ids"]]
    if images:
        entry["image"] = images[0] if len(images) == 1 else images
    entry["conversations"] = [
        {"from": t["from"], "value": _expand_video_marker(t["value"], n_frames) if t["from"] == "human" else t["value"]}
        for t in row["conversations"]
    ]
    return entry


def build_image_path(image: Mapping[str, Any]) -> str:
    """Return the path of an image below the export's folder, from its id and format."""
    image_id: str = image["image_id"]
    return f"images/{image_id[:2]}/{image_id}.{image['format'].lower()}"


def _expand_video_marker(question: str, n_frames: int) -> str:
    """Replace the video's marker by one per frame. Elsewhere it is a word: an answer may be about the tag."""
    return question.replace(VIDEO_MARKER, IMAGE_MARKER * n_frames, 1) if n_frames else question
