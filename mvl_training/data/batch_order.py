"""Batch order: which packs make up each step, on any number of ranks.

The step number is the state: the order is a function of plan, seed and step alone, so nothing about the data has to be
saved in a checkpoint. A step takes `packs_per_step` packs of the plan's order, whatever the number of ranks; rank r of
w takes the packs r, r+w, .... Where they do not divide evenly a rank gets an empty pack, which costs one dummy tile and
no loss. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packed_rows import PackedRows


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """The packs of every step.

    Attributes:
        n_packs: Packs of the plan.
        packs_per_step: Packs of an optimizer step over all ranks; the last step of an epoch may have fewer.
        seed: Seed of the order in epochs after the first.
    """

    n_packs: int
    packs_per_step: int
    seed: int

    @classmethod
    def from_plan(cls, plan: PackPlan | PackedRows, samples_per_step: int, seed: int) -> BatchOrder:
        """Return an order whose steps hold about `samples_per_step` samples."""
        packs_per_step = max(1, round(samples_per_step * len(plan) / plan.count_samples()))
        return cls(len(plan), min(packs_per_step, len(plan)), seed)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.n_packs // self.packs_per_step)

    def list_step_packs(self, step: int) -> list[int]:
        """Return the positions of a step's packs (`step` from 0). Epochs after the first shuffle the plan."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        span = slice(step_in_epoch * self.packs_per_step, min((step_in_epoch + 1) * self.packs_per_step, self.n_packs))
        if epoch == 0:
            return list(range(span.start, span.stop))
        return [int(position) for position in _permute_packs(self.n_packs, self.seed, epoch)[span]]

    def count_grad_accum_steps(self, world_size: int) -> int:
        """Return the number of forward passes per rank and step."""
        return -(-self.packs_per_step // world_size)

    def list_rank_packs(self, step: int, rank: int, world_size: int) -> list[int | None]:
        """Return this rank's packs of a step; None where it has none left and runs an empty one."""
        rank_positions: list[int | None] = list(self.list_step_packs(step)[rank::world_size])
        return rank_positions + [None] * (self.count_grad_accum_steps(world_size) - len(rank_positions))

    def compute_straggler_efficiency(self, work_N: np.ndarray, world_size: int) -> float:
        """Return the straggler efficiency of the first epoch.

        For each step it is the mean work of the ranks divided by the work of the busiest rank, which all others wait
        for; the result is the mean over the steps. 1.0 when all ranks have equal work, or none has any.

        Args:
            work_N: Work of each of the N packs by position (tokens, tiles).
            world_size: Number of ranks.
        """
        padded_work = np.zeros((self.steps_per_epoch, self.count_grad_accum_steps(world_size) * world_size))
        step_work = np.zeros(self.steps_per_epoch * self.packs_per_step)
        step_work[: self.n_packs] = work_N
        padded_work[:, : self.packs_per_step] = step_work.reshape(-1, self.packs_per_step)
        rank_work = padded_work.reshape(self.steps_per_epoch, -1, world_size).sum(axis=1)
        max_work = rank_work.max(axis=1)
        return float(np.divide(rank_work.mean(axis=1), max_work, out=np.ones_like(max_work), where=max_work > 0).mean())


@lru_cache(maxsize=1)
def _permute_packs(n_packs: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n_packs)
