"""A stage's pack plan as training reads it: counts of all packs in arrays, and the samples of a pack on demand.

Memory: 16 bytes per pack, 50 MB for the packs of ten million samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake

MAX_READ_GAP = 64
"""Packs at most this far apart are read in one scan: ranks take every n-th pack, and a scan costs more than the gap."""

_PACK_COLUMNS = ("pack_id", "position", "row_ids", "lengths")


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples that share a sequence.

    Attributes:
        pack_id: Digest of the plan's inputs and the samples.
        position: Position of the pack in the plan.
        row_ids: Ids of its mixture rows, in order.
        lengths: Tokens of each row.
    """

    pack_id: str
    position: int
    row_ids: tuple[str, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackCounts:
    """Counts of some packs, in arrays as long as there are packs: tokens, loss tokens, tiles and samples of each."""

    n_tokens: np.ndarray
    n_loss_tokens: np.ndarray
    n_tiles: np.ndarray
    n_samples: np.ndarray


class PackPlan:
    """A snapshot of the packs of a stage, by position; a plan published later does not change it.

    Attributes:
        stage: The training stage.
        version: The table's data version.
        n_tokens: Tokens of each pack: int32 (packs,), like the three arrays below.
        n_loss_tokens: Tokens that the loss is taken on.
        n_tiles: Vision tiles.
        n_samples: Samples.

    Raises:
        MvlError: There is no plan.
    """

    def __init__(self, lake: Lake, stage: TrainingStage) -> None:
        self.stage = stage
        table = lake.get_table(f"pack_plan/{stage}")
        hint = f"materialise pack_plan/{stage} first"
        if not table.exists():
            raise MvlError(f"there is no pack_plan/{stage}", hint=hint)
        self._table = table.snapshot()
        self._table.require_known_keys()
        self.version = self._table.compute_data_version()
        n_packs = self._table.count()
        if not n_packs:
            raise MvlError(f"pack_plan/{stage} is empty", hint=hint)
        self.n_tokens, self.n_loss_tokens, self.n_tiles, self.n_samples = np.zeros((4, n_packs), dtype=np.int32)
        arrays = {"n_tokens": self.n_tokens, "n_loss_tokens": self.n_loss_tokens, "n_tiles": self.n_tiles}
        for batch in self._table.scan(["position", *arrays, "lengths"], batch_size=65536):
            positions = batch.column("position").to_numpy()
            for name, array in arrays.items():
                array[positions] = batch.column(name).to_numpy()
            self.n_samples[positions] = pc.list_value_length(batch.column("lengths")).to_numpy()

    def __len__(self) -> int:
        return len(self.n_tokens)

    def count_samples(self) -> int:
        """Return the number of samples of all packs."""
        return int(self.n_samples.sum())

    def read_counts(self, positions: Sequence[int]) -> PackCounts:
        """Return the counts of the packs at these positions, in their order."""
        chosen = np.asarray(positions)
        return PackCounts(
            self.n_tokens[chosen], self.n_loss_tokens[chosen], self.n_tiles[chosen], self.n_samples[chosen]
        )

    def __getitem__(self, position: int) -> Pack:
        (pack,) = self.read_packs([position])
        return pack

    def read_packs(self, positions: Sequence[int]) -> list[Pack]:
        """Return the packs at these positions, in their order.

        Raises:
            IndexError: A position is outside the plan.
            MvlError: The table is not in the order of its positions.
        """
        packs_by_position: dict[int, Pack] = {}
        for start, stop in _iter_read_ranges(positions):
            if not 0 <= start < stop <= len(self):
                raise IndexError(start if start < 0 else stop - 1)
            for expected_position, row in enumerate(self._table.iter_range(start, stop, _PACK_COLUMNS), start):
                if row["position"] != expected_position:
                    raise MvlError(
                        f"pack_plan/{self.stage} has position {row['position']} where {expected_position} was expected",
                        hint=f"materialise pack_plan/{self.stage} again",
                    )
                packs_by_position[expected_position] = Pack(
                    row["pack_id"], expected_position, tuple(row["row_ids"]), tuple(row["lengths"])
                )
        return [packs_by_position[position] for position in positions]


def _iter_read_ranges(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) ranges that cover all positions; near ones share a range."""
    group: list[int] = []
    for position in sorted(positions):
        if group and position - group[-1] > MAX_READ_GAP:
            yield group[0], group[-1] + 1
            group = []
        group.append(position)
    if group:
        yield group[0], group[-1] + 1
