"""Which packs make up which step, on any number of ranks: a function of (plan, seed, step) alone.

Belongs here: the order of the data, and how evenly it loads ranks. Does not: how packs are chosen (`packing`), tensors
(`batches`). No torch.

A step takes `per_step` packs of the plan's order, whatever the number of ranks; rank r of w takes the packs r, r+w, ….
Where they do not divide evenly a rank gets an empty pack, which costs one dummy tile and no loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvl_training.data.pack_plan import PackPlan


@dataclass(frozen=True, slots=True)
class Order:
    """Which packs make up which step."""

    packs: int
    per_step: int
    seed: int

    @classmethod
    def of(cls, plan: PackPlan, samples_per_step: int, seed: int) -> Order:
        """Packs per step such that a step holds about `samples_per_step` samples."""
        per_step = max(1, round(samples_per_step * len(plan) / int(plan.n_samples.sum())))
        return cls(len(plan), min(per_step, len(plan)), seed)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.packs // self.per_step)

    def step(self, number: int) -> list[int]:
        """Positions of the packs of step `number` (from 0). The first epoch follows the plan, later ones shuffle it."""
        epoch, within = divmod(number, self.steps_per_epoch)
        places = slice(within * self.per_step, min((within + 1) * self.per_step, self.packs))
        if epoch == 0:
            return list(range(places.start, places.stop))
        return [int(p) for p in _shuffled(self.packs, self.seed, epoch)[places]]

    def micro_steps(self, world: int) -> int:
        """Forward passes per rank and step."""
        return -(-self.per_step // world)

    def share(self, number: int, rank: int, world: int) -> list[int | None]:
        """This rank's packs of a step; None where it has none and runs empty."""
        mine: list[int | None] = list(self.step(number)[rank::world])
        return mine + [None] * (self.micro_steps(world) - len(mine))

    def evenness(self, work_N: np.ndarray, world: int) -> float:
        """Straggler efficiency of the first epoch: the mean over its steps of the ranks' mean work over the work of
        the rank that all others wait for. `work_N` is the work of each pack by position (tokens, tiles); 1.0 when every
        rank has as much, also when there is none."""
        padded = np.zeros((self.steps_per_epoch, self.micro_steps(world) * world))
        steps = np.zeros(self.steps_per_epoch * self.per_step)
        steps[: self.packs] = work_N
        padded[:, : self.per_step] = steps.reshape(-1, self.per_step)
        of_ranks = padded.reshape(self.steps_per_epoch, -1, world).sum(axis=1)
        most = of_ranks.max(axis=1)
        return float(np.divide(of_ranks.mean(axis=1), most, out=np.ones_like(most), where=most > 0).mean())


@lru_cache(maxsize=1)
def _shuffled(packs: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(packs)
