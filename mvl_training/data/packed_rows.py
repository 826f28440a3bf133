"""Packed rows as training reads them: a rank takes its samples by position, from shards in the order of training.

Everything is read by position, so that a rank starts at once and needs the same memory whatever the number of rows. No
torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from mvl_assets.common.digest import KEY_SCHEME
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.table_spec import KEY_SCHEME_COLUMN
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.lake_queries.packed_rows import IMAGE_BYTES_COLUMN
from mvl_training.data.pack_plan import PackPlan, PlannedRow, SampleCounts
from mvl_training.data.raw_packs import READ_GROUP_PACKS, RawPack, iter_group_ends, prefetch

LOG = logging.getLogger(__name__)

COUNT_BLOCK_ROWS = 1 << 16
"""Rows whose counts are read together and kept: a step asks for a few hundred that follow each other."""

_COUNT_COLUMNS = ("n_tokens", "n_loss_tokens", "n_tiles")
_PLAN_COLUMNS = (KEY_SCHEME_COLUMN, "plan_version", "plan_table_version")
_SAMPLE_COLUMNS = ("row_id", "source", "category", "conversations", "image_ids", "video")
_ROW_COLUMNS = ("position", "n_tokens", *_SAMPLE_COLUMNS, "stored_image_ids", "stored_image_sizes")

_Group = tuple[list[Sequence[int]], list[dict[str, Any]]]
"""Packs whose images are read together, and the rows of their samples."""


class PackedRows:
    """A snapshot of the packed rows of a stage; rows written later do not change it.

    Attributes:
        stage: The training stage.
        version: Data version of the pack plan that they were made from.
    """

    def __init__(self, stage: TrainingStage, table: TableReader) -> None:
        self.stage = stage
        self._table = table
        self._n_rows = table.count()
        first, last = (self._take([position], _PLAN_COLUMNS).to_pylist()[0] for position in (0, self._n_rows - 1))
        self.version: str = last["plan_version"]
        self.plan_table_version: int = last["plan_table_version"]
        # Rows are written in order, and all of a plan by one scheme. Looking at each would take longer with more rows.
        self._is_of_one_plan = first["plan_version"] == self.version
        self._has_known_keys = first[KEY_SCHEME_COLUMN] == last[KEY_SCHEME_COLUMN] == KEY_SCHEME
        self._count_block: tuple[int, SampleCounts] = (0, _build_counts(self._take([], _COUNT_COLUMNS)))

    def __len__(self) -> int:
        return self._n_rows

    def is_of(self, plan: TableReader) -> bool:
        """Return whether these are all rows of a plan."""
        if not self._is_of_one_plan or not self._has_known_keys or self._n_rows != plan.count():
            return False
        # The data version is a digest of every row of the plan; as long as nobody wrote the table, it is the same.
        return self.plan_table_version == plan.version or self.version == plan.compute_data_version()

    def read_counts(self, positions: Sequence[int] | np.ndarray) -> SampleCounts:
        """Return the counts of the samples at these positions, in their order."""
        first, last = int(min(positions)), int(max(positions))
        if last - first >= COUNT_BLOCK_ROWS:  # the samples of later epochs lie apart
            return _build_counts(self._take(positions, _COUNT_COLUMNS))
        block_start, counts = self._count_block
        if first < block_start or last >= block_start + len(counts.n_tokens):
            stop = min(first + COUNT_BLOCK_ROWS, self._n_rows)
            counts = _build_counts(self._take(range(first, stop), _COUNT_COLUMNS))
            block_start, _ = self._count_block = (first, counts)
        return counts.take(np.asarray(positions) - block_start)

    def iter_raw_packs(self, packs: Iterable[Sequence[int]]) -> Iterator[RawPack]:
        """Yield packs, given as positions of their samples, as rows and encoded images, in their order.

        Packs are read in groups, as `PlannedPackReader.iter_raw_packs` reads images; the next group is read while one
        is used.
        """
        groups = prefetch(self._iter_groups(iter(packs)))
        for raw_packs in prefetch(self._fetch_group(group, rows) for group, rows in groups):
            yield from raw_packs

    def _iter_groups(self, packs: Iterator[Sequence[int]]) -> Iterator[_Group]:
        while group := list(islice(packs, READ_GROUP_PACKS)):
            own = sorted({position for pack in group for position in pack})
            image_sizes = self._take(own, ("stored_image_sizes",)).column(0).to_pylist()
            sizes = {position: sum(row_sizes) for position, row_sizes in zip(own, image_sizes, strict=True)}
            start = 0
            for stop in iter_group_ends(sum(sizes[position] for position in pack) for pack in group):
                positions = sorted({position for pack in group[start:stop] for position in pack})
                yield group[start:stop], self._take(positions, _ROW_COLUMNS).to_pylist()
                start = stop

    def _fetch_group(self, packs: Sequence[Sequence[int]], rows: Sequence[dict[str, Any]]) -> list[RawPack]:
        """Return the packs, whose rows were read, with their images."""
        image_bytes = self._read_image_bytes([row["position"] for row in rows])
        rows_by_id = {row["row_id"]: {name: row[name] for name in _SAMPLE_COLUMNS} for row in rows}
        image_data: dict[str, bytes] = {}
        for row, data in zip(rows, image_bytes, strict=True):
            image_data |= zip(row["stored_image_ids"], _split_bytes(data, row["stored_image_sizes"]), strict=True)
        planned_rows = {row["position"]: PlannedRow(row["position"], row["row_id"], row["n_tokens"]) for row in rows}
        return [RawPack(tuple(planned_rows[position] for position in pack), rows_by_id, image_data) for pack in packs]

    def _read_image_bytes(self, positions: Sequence[int]) -> list[bytes]:
        if not positions:
            return []
        blobs = self._table.open().read_blobs(IMAGE_BYTES_COLUMN, indices=list(positions), preserve_order=True)
        return [data or b"" for _, data in blobs]

    def _take(self, positions: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        return self._table.open().take([int(position) for position in positions], columns=list(columns))


def _split_bytes(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size


def _build_counts(table: pa.Table) -> SampleCounts:
    return SampleCounts(*(table.column(name).to_numpy() for name in _COUNT_COLUMNS))


def open_packs(lake: Lake, stage: TrainingStage) -> PackPlan | PackedRows:
    """Return what training reads: the packed rows, if they are of the current plan and complete, else the plan.

    Raises:
        MvlError: There is no plan.
    """
    plan, table = lake.get_table(f"pack_plan/{stage}"), lake.get_table(f"packed_rows/{stage}")
    if plan.exists() and table.count():
        packed_rows = PackedRows(stage, table.snapshot())
        if packed_rows.is_of(plan.snapshot()):
            return packed_rows
        LOG.warning(f"packed_rows/{stage} is not of the current plan: rows are looked up in the lake instead")
    return PackPlan(lake, stage)
