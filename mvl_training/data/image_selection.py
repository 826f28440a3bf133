"""Which images of a row a sample shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvl_assets.common.pick_evenly import pick_evenly


def select_image_ids(row: Mapping[str, Any], max_frames: int) -> list[str]:
    """Return the ids of the images that the sample shows, in order: all, or the chosen frames of a video.

    Args:
        row: A mixture row.
        max_frames: Frames taken from a video.
    """
    image_ids = list(row["image_ids"] or [])
    if row["video"] is None:
        return image_ids
    return [image_ids[index] for index in pick_evenly(len(image_ids), max_frames, "down")]
