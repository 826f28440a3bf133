"""Which images a row shows."""

from __future__ import annotations

from typing import Any

import pytest

from mvl_training.data.raw_packs import FrameLimits


def build_row(n_images: int, video_name: str | None) -> dict[str, Any]:
    return {
        "image_ids": [str(n) for n in range(n_images)],
        "video": None if video_name is None else {"name": video_name},
    }


@pytest.mark.parametrize(
    ("video_name", "n_shown"), [(None, 40), ("clip.mp4", 32), ("shareVideoGPTV/train_300k/clip", 10)]
)
def test_ten_frames_of_a_folder_are_taken_where_the_released_code_takes_ten(
    video_name: str | None, n_shown: int
) -> None:
    assert len(FrameLimits(32, 10).select_image_ids(build_row(40, video_name))) == n_shown


def test_frames_are_evenly_spread_and_rounded_down() -> None:
    folder = build_row(32, "shareVideoGPTV/clip")
    assert FrameLimits(32, 10).select_image_ids(folder) == ["0", "3", "6", "10", "13", "17", "20", "24", "27", "31"]
    assert len(FrameLimits(32).select_image_ids(folder)) == 32
    assert len(FrameLimits(4, 10).select_image_ids(folder)) == 4


def test_seconds_are_those_of_the_chosen_frames_and_images_have_none() -> None:
    clip = build_row(40, "shareVideoGPTV/clip")
    clip["video"] |= {"seconds": [float(n) for n in range(40)]}
    limits = FrameLimits(32, 10)
    assert limits.select_seconds(clip) == [float(image_id) for image_id in limits.select_image_ids(clip)]
    clip["video"]["seconds"].pop()
    assert limits.select_seconds(clip) == []
    assert limits.select_seconds(build_row(2, None)) == []
    assert limits.select_seconds(build_row(0, None)) == [], "text alone"
    assert limits.select_seconds(build_row(0, None) | {"image_ids": None}) == []
