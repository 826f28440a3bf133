"""Reading planned packs from the tables of the lake, by key: for mixtures that are too small to be materialised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries import views
from mvl_training.data.pack_plan import PackPlan, PlannedRow
from mvl_training.data.processing import SampleProcessor
from mvl_training.data.raw_packs import READ_GROUP_PACKS, RawPack, iter_group_ends, prefetch


@dataclass(frozen=True, slots=True)
class _ReadGroup:
    """Consecutive packs, and the ids of all their images."""

    packs: list[tuple[PlannedRow, ...]]
    rows: Mapping[str, dict[str, Any]]
    image_ids: set[str]


class PlannedPackReader:
    """Looks up the rows and images of planned packs in the lake; holds indexes of all their keys."""

    def __init__(self, lake: Lake, plan: PackPlan, processor: SampleProcessor) -> None:
        self.lake = lake
        self.plan = plan
        self.processor = processor

    def iter_raw_packs(self, packs: Iterable[Sequence[int]]) -> Iterator[RawPack]:
        """Yield packs, given as positions in the plan, as rows and encoded images, in their order.

        The rows of `READ_GROUP_PACKS` packs are read together, and images in groups of `READ_GROUP_BYTES`, at a
        twentieth of the cost of reading pack by pack; the next group is read while one is used. Memory holds the rows
        and image bytes of two groups, more only if a single pack has more than `READ_GROUP_BYTES` of images.
        """
        read_groups = prefetch(self._iter_read_groups(iter(packs)))
        for raw_packs in prefetch(self._fetch_group(read_group) for read_group in read_groups):
            yield from raw_packs

    def _iter_read_groups(self, packs: Iterator[Sequence[int]]) -> Iterator[_ReadGroup]:
        """Yield packs whose images are read together: a group ends before it would exceed `READ_GROUP_BYTES`."""
        while group := list(islice(packs, READ_GROUP_PACKS)):
            planned_rows = iter(self.plan.read_rows([position for pack in group for position in pack]))
            planned_packs = [tuple(islice(planned_rows, len(pack))) for pack in group]
            row_ids = [planned_row.row_id for pack in planned_packs for planned_row in pack]
            rows = views.read_mixture_rows_by_id(self.lake, self.plan.stage, row_ids)
            image_ids_by_pack = [self._collect_image_ids(pack, rows) for pack in planned_packs]
            bytes_by_image = self.lake.images.read_sizes(set[str]().union(*image_ids_by_pack))
            sizes = [sum(bytes_by_image.get(image_id, 0) for image_id in image_ids) for image_ids in image_ids_by_pack]
            start = 0
            for stop in iter_group_ends(sizes):
                image_ids = set[str]().union(*image_ids_by_pack[start:stop])
                yield _ReadGroup(planned_packs[start:stop], rows, image_ids)
                start = stop

    def _collect_image_ids(self, pack: Sequence[PlannedRow], rows: Mapping[str, dict[str, Any]]) -> set[str]:
        pack_rows = (rows[planned_row.row_id] for planned_row in pack if planned_row.row_id in rows)
        return {image_id for row in pack_rows for image_id in self.processor.select_image_ids(row)}

    def _fetch_group(self, group: _ReadGroup) -> list[RawPack]:
        image_data = self.lake.images.read_stored_images(group.image_ids)
        return [RawPack(pack, group.rows, image_data) for pack in group.packs]
