"""A stage's pack plan as training reads it: the numbers of all packs in arrays, a pack's samples when it is its turn.

Belongs here: reading `pack_plan/<stage>`. Does not: making it (`packing`), tensors (`batches`). 16 bytes a pack are
held, 50 MB for the packs of ten million samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.recipe import StageName

NEAR = 64
"""Packs this far apart are read in one go: ranks take every so manieth pack, and one more scan costs more than that."""

_PACK = ("pack_id", "position", "row_ids", "lengths")


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples that share a sequence, in order, with their lengths in tokens."""

    pack_id: str
    position: int
    row_ids: tuple[str, ...]
    lengths: tuple[int, ...]


class PackPlan:
    """The packs of a stage by position, as they are now: a plan that is made anew meanwhile changes nothing here.

    `version` is the table's data version; `n_tokens`, `n_targets`, `n_tiles` and `n_samples` are int32 arrays over the
    packs. Raises `MvlError` when there is no plan.
    """

    def __init__(self, lake: Lake, stage: StageName) -> None:
        self.stage = stage
        self._table = lake.table(f"pack_plan/{stage}")
        hint = f"materialise pack_plan/{stage} first"
        if not self._table.exists():
            raise MvlError(f"there is no pack_plan/{stage}", hint=hint)
        self._table = self._table.pinned()
        self.version = self._table.data_version()
        size = self._table.count()
        if not size:
            raise MvlError(f"pack_plan/{stage} is empty", hint=hint)
        self.n_tokens, self.n_targets, self.n_tiles, self.n_samples = np.zeros((4, size), dtype=np.int32)
        columns = ["position", "n_tokens", "n_targets", "n_tiles", "lengths"]
        for batch in self._table.scan(columns, batch_size=65536):
            places = batch.column("position").to_numpy()
            for name in columns[1:4]:
                getattr(self, name)[places] = batch.column(name).to_numpy()
            self.n_samples[places] = pc.list_value_length(batch.column("lengths")).to_numpy()

    def __len__(self) -> int:
        return len(self.n_tokens)

    def __getitem__(self, position: int) -> Pack:
        (found,) = self.at([position])
        return found

    def at(self, positions: Sequence[int]) -> list[Pack]:
        """The packs at these positions, in their order. Raises IndexError, and MvlError for a table out of order."""
        found: dict[int, Pack] = {}
        for start, stop in _stretches(positions):
            if not 0 <= start < stop <= len(self):
                raise IndexError(start if start < 0 else stop - 1)
            for expected, row in enumerate(self._table.window(start, stop, _PACK), start):
                if row["position"] != expected:
                    raise MvlError(
                        f"pack_plan/{self.stage} has position {row['position']} where {expected} was expected",
                        hint=f"materialise pack_plan/{self.stage} again",
                    )
                found[expected] = Pack(row["pack_id"], expected, tuple(row["row_ids"]), tuple(row["lengths"]))
        return [found[position] for position in positions]


def _stretches(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) around all of them: near ones are read together with what lies between."""
    together: list[int] = []
    for position in sorted(positions):
        if together and position - together[-1] > NEAR:
            yield together[0], together[-1] + 1
            together = []
        together.append(position)
    if together:
        yield together[0], together[-1] + 1
