"""Packed rows as training reads them: a rank takes its packs by position, from shards in the order of training.

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
from mvl_training.data.pack_plan import Pack, PackCounts, PackPlan
from mvl_training.data.raw_packs import READ_GROUP_PACKS, RawPack, iter_group_ends, prefetch

LOG = logging.getLogger(__name__)

COUNT_BLOCK_PACKS = 1 << 14
"""Packs whose counts are read together and kept: a step asks for a few hundred that follow each other."""

_COUNT_COLUMNS = ("n_tokens", "n_loss_tokens", "n_tiles", "n_samples")
_PLAN_COLUMNS = (KEY_SCHEME_COLUMN, "plan_version", "plan_table_version", "n_samples_before", "n_samples")
_PACK_COLUMNS = ("pack_id", "position", "rows", "lengths", "image_ids", "image_sizes")

_Group = tuple[list[int | None], list[dict[str, Any]]]
"""Positions whose images are read together (None: an empty pack), and the rows of their packs."""


class PackedRows:
    """A snapshot of the packed rows of a stage; rows packed later do not change it.

    Attributes:
        stage: The training stage.
        version: Data version of the pack plan that they were made from.
    """

    def __init__(self, stage: TrainingStage, table: TableReader) -> None:
        self.stage = stage
        self._table = table
        self._n_packs = table.count()
        first, last = (self._take([position], _PLAN_COLUMNS).to_pylist()[0] for position in (0, self._n_packs - 1))
        self.version: str = last["plan_version"]
        self.plan_table_version: int = last["plan_table_version"]
        # Rows are written in order, and all of a plan by one scheme. Looking at each would take longer with more rows.
        self._is_of_one_plan = first["plan_version"] == self.version
        self._has_known_keys = first[KEY_SCHEME_COLUMN] == last[KEY_SCHEME_COLUMN] == KEY_SCHEME
        self._n_samples: int = last["n_samples_before"] + last["n_samples"]
        self._count_block: tuple[int, PackCounts] = (0, _build_counts(self._take([], _COUNT_COLUMNS)))

    def __len__(self) -> int:
        return self._n_packs

    def is_of(self, plan: TableReader) -> bool:
        """Return whether these are the rows of all packs of a plan."""
        if not self._is_of_one_plan or not self._has_known_keys or self._n_packs != plan.count():
            return False
        # The data version is a digest of every row of the plan; as long as nobody wrote the table, it is the same.
        return self.plan_table_version == plan.version or self.version == plan.compute_data_version()

    def count_samples(self) -> int:
        """Return the number of samples of all packs."""
        return self._n_samples

    def read_counts(self, positions: Sequence[int]) -> PackCounts:
        """Return the counts of the packs at these positions, in their order."""
        first, last = min(positions), max(positions)
        if last - first >= COUNT_BLOCK_PACKS:  # the packs of later epochs lie apart
            return _build_counts(self._take(positions, _COUNT_COLUMNS))
        block_start, counts = self._count_block
        if first < block_start or last >= block_start + len(counts.n_tokens):
            stop = min(first + COUNT_BLOCK_PACKS, self._n_packs)
            counts = _build_counts(self._take(range(first, stop), _COUNT_COLUMNS))
            block_start, _ = self._count_block = (first, counts)
        chosen = np.asarray(positions) - block_start
        return PackCounts(
            counts.n_tokens[chosen], counts.n_loss_tokens[chosen], counts.n_tiles[chosen], counts.n_samples[chosen]
        )

    def iter_raw_packs(self, positions: Iterable[int | None]) -> Iterator[RawPack]:
        """Yield the packs at these positions (None: an empty one) as rows and encoded images, in their order.

        Packs are read in groups, as `PlannedPackReader.iter_raw_packs` reads images; the next group is read while one
        is used.
        """
        groups = prefetch(self._iter_groups(iter(positions)))
        for raw_packs in prefetch(self._fetch_group(group_positions, rows) for group_positions, rows in groups):
            yield from raw_packs

    def _iter_groups(self, positions: Iterator[int | None]) -> Iterator[_Group]:
        while group := list(islice(positions, READ_GROUP_PACKS)):
            own = sorted({position for position in group if position is not None})
            image_sizes = self._take(own, ("image_sizes",)).column(0).to_pylist()
            sizes = {position: sum(pack_sizes) for position, pack_sizes in zip(own, image_sizes, strict=True)}
            start = 0
            for stop in iter_group_ends([0 if position is None else sizes[position] for position in group]):
                group_positions = sorted({position for position in group[start:stop] if position is not None})
                rows = self._take(group_positions, _PACK_COLUMNS).to_pylist() if group_positions else []
                yield group[start:stop], rows
                start = stop

    def _fetch_group(self, positions: Sequence[int | None], rows: Sequence[dict[str, Any]]) -> list[RawPack]:
        """Return the packs at these positions, whose rows were read, with their images."""
        raw_packs: dict[int | None, RawPack] = {None: RawPack(None, {}, {})}
        for row, data in zip(rows, self._read_image_bytes([row["position"] for row in rows]), strict=True):
            raw_packs[row["position"]] = RawPack(
                Pack(
                    row["pack_id"],
                    row["position"],
                    tuple(sample["row_id"] for sample in row["rows"]),
                    tuple(row["lengths"]),
                ),
                {sample["row_id"]: sample for sample in row["rows"]},
                dict(zip(row["image_ids"], _split_bytes(data, row["image_sizes"]), strict=True)),
            )
        return [raw_packs[position] for position in positions]

    def _read_image_bytes(self, positions: Sequence[int]) -> list[bytes]:
        if not positions:
            return []
        blobs = self._table.open().read_blobs(IMAGE_BYTES_COLUMN, indices=list(positions), preserve_order=True)
        return [data or b"" for _, data in blobs]

    def _take(self, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
        return self._table.open().take(list(positions), columns=list(columns))


def _split_bytes(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size


def _build_counts(table: pa.Table) -> PackCounts:
    return PackCounts(*(table.column(name).to_numpy() for name in _COUNT_COLUMNS))


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
