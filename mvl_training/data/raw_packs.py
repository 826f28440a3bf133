"""Packs as rows and encoded images before decoding: which images a row shows, and reading ahead in groups. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from mvl_assets.common.pick_evenly import pick_evenly
from mvl_assets.common.training_stages import TrainingStage
from mvl_training.data.pack_plan import PlannedRow
from mvl_training.recipe import Recipe

_T = TypeVar("_T")

FRAME_FOLDER_MARK = "shareVideoGPTV"
"""In the name of a video: the released code takes it as a folder of frames."""

READ_GROUP_PACKS = 256
READ_GROUP_BYTES = 32 << 20
"""About 400 images. Lance reads 256 images at once three times as fast as 8; more than that gains nothing."""


@dataclass(frozen=True, slots=True)
class RawPack:
    """A pack with the rows and encoded images of its samples, not yet decoded.

    Attributes:
        planned_rows: Its samples, in order; none for an empty pack.
        rows: Mixture rows by id; may be shared with other packs.
        image_data: Encoded images by id; may be shared with other packs.
    """

    planned_rows: tuple[PlannedRow, ...]
    rows: Mapping[str, dict[str, Any]]
    image_data: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How many frames are taken from a video.

    Attributes:
        max_frames: Of any video.
        folder_frames: Of one that a folder holds as images, by the released code's rule; None: no other limit.
    """

    max_frames: int
    folder_frames: int | None = None

    @classmethod
    def for_stage(cls, recipe: Recipe, stage: TrainingStage) -> FrameLimits:
        """Return the limits of a stage."""
        return cls(recipe.get_stage(stage).max_frames, recipe.folder_frames)

    def select_image_ids(self, row: Mapping[str, Any]) -> list[str]:
        """Return the ids of the images that a mixture row shows, in order: all, or the chosen frames of a video."""
        image_ids = list(row["image_ids"] or [])
        return image_ids if row["video"] is None else [image_ids[index] for index in self._pick_frames(row)]

    def select_seconds(self, row: Mapping[str, Any]) -> list[float]:
        """Return the times of a video's chosen frames; none of images, or if the row has not one for each frame."""
        seconds = (row["video"] or {}).get("seconds") or []
        if not seconds or len(seconds) != len(row["image_ids"] or []):
            return []
        return [seconds[index] for index in self._pick_frames(row)]

    def _pick_frames(self, row: Mapping[str, Any]) -> list[int]:
        """Return which frames of a video are chosen."""
        n_frames = self.max_frames
        if self.folder_frames is not None and FRAME_FOLDER_MARK in (row["video"]["name"] or ""):
            n_frames = min(n_frames, self.folder_frames)
        return pick_evenly(len(row["image_ids"] or []), n_frames, "down")


def iter_group_ends(sizes: Iterable[int]) -> Iterator[int]:
    """Yield the ends of groups of consecutive packs with these sizes in bytes, each of at most `READ_GROUP_BYTES`.

    A pack that is larger is a group of its own.
    """
    index, group_bytes = 0, 0
    for index, size in enumerate(sizes):
        if group_bytes and group_bytes + size > READ_GROUP_BYTES:
            yield index
            group_bytes = 0
        group_bytes += size
    yield index + 1


def prefetch(items: Iterator[_T]) -> Iterator[_T]:
    """Yield the same items; while one is used, a thread prepares the next."""
    with ThreadPoolExecutor(1, "pack-reader") as executor:
        next_item = executor.submit(next, items, None)
        while (item := next_item.result()) is not None:
            next_item = executor.submit(next, items, None)
            yield item
