"""A stage's pack plan as training reads it: counts of all samples in arrays, and their rows on demand.

Memory: 12 bytes per sample, 120 MB for ten million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake

_COUNT_COLUMNS = ("n_tokens", "n_loss_tokens", "n_tiles")
_ROW_COLUMNS = ("position", "row_id", "n_tokens")


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A sample in the order of training.

    Attributes:
        position: Position in the plan.
        row_id: Id of the mixture row.
        n_tokens: Tokens of the language model.
    """

    position: int
    row_id: str
    n_tokens: int


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Counts of some samples, in arrays as long as there are samples: tokens, loss tokens and tiles of each."""

    n_tokens: np.ndarray
    n_loss_tokens: np.ndarray
    n_tiles: np.ndarray

    def take(self, chosen: np.ndarray) -> SampleCounts:
        """Return the counts of the samples with these indices, in their order."""
        return SampleCounts(self.n_tokens[chosen], self.n_loss_tokens[chosen], self.n_tiles[chosen])


class PackPlan:
    """A snapshot of the samples of a stage, by position; a plan published later does not change it.

    Attributes:
        stage: The training stage.
        version: The table's data version.
        counts: Counts of all samples, int32.

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
        n_samples = self._table.count()
        if not n_samples:
            raise MvlError(f"pack_plan/{stage} is empty", hint=hint)
        self.counts = SampleCounts(*np.zeros((3, n_samples), dtype=np.int32))
        for batch in self._table.scan(["position", *_COUNT_COLUMNS], batch_size=65536):
            positions = batch.column("position").to_numpy()
            for name in _COUNT_COLUMNS:
                getattr(self.counts, name)[positions] = batch.column(name).to_numpy()

    def __len__(self) -> int:
        return len(self.counts.n_tokens)

    def read_counts(self, positions: Sequence[int] | np.ndarray) -> SampleCounts:
        """Return the counts of the samples at these positions, in their order."""
        return self.counts.take(np.asarray(positions))

    def read_rows(self, positions: Sequence[int]) -> list[PlannedRow]:
        """Return the samples at these positions, in their order.

        Raises:
            IndexError: A position is outside the plan.
            MvlError: The table is not in the order of its positions.
        """
        unique_positions = sorted(set(positions))
        if unique_positions and not 0 <= unique_positions[0] <= unique_positions[-1] < len(self):
            raise IndexError(f"positions {unique_positions[0]} to {unique_positions[-1]} of a plan of {len(self)}")
        rows_by_position: dict[int, PlannedRow] = {}
        table = self._table.open().take(unique_positions, columns=list(_ROW_COLUMNS))
        for expected_position, row in zip(unique_positions, table.to_pylist(), strict=True):
            if row["position"] != expected_position:
                raise MvlError(
                    f"pack_plan/{self.stage} has position {row['position']} where {expected_position} was expected",
                    hint=f"materialise pack_plan/{self.stage} again",
                )
            rows_by_position[expected_position] = PlannedRow(**row)
        return [rows_by_position[position] for position in positions]
