"""Batch order: which samples make up each step, on any number of ranks.

The step number is the state: the order is a function of plan, seed and step alone, so nothing about the data has to be
saved in a checkpoint. A step takes exactly `global_batch_size` samples of the plan's order, whatever the number of
ranks; how they are divided among the ranks is decided by `step_packs`. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """The samples of every step.

    Attributes:
        n_samples: Samples of the plan.
        global_batch_size: Samples of a step over all ranks; the last step of an epoch may have fewer.
        seed: Seed of the order in epochs after the first.
    """

    n_samples: int
    global_batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.n_samples // self.global_batch_size)

    def list_step_samples(self, step: int) -> np.ndarray:
        """Return the positions of a step's samples (`step` from 0). Epochs after the first shuffle the plan."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self.global_batch_size
        stop = min(start + self.global_batch_size, self.n_samples)
        return np.arange(start, stop) if epoch == 0 else _permute_samples(self.n_samples, self.seed, epoch)[start:stop]

    def count_samples(self, n_steps: int) -> int:
        """Return the number of samples of the first `n_steps` steps."""
        n_epochs, n_remaining_steps = divmod(n_steps, self.steps_per_epoch)
        return n_epochs * self.n_samples + n_remaining_steps * self.global_batch_size


# Two, because the loader reads ahead into the next epoch.
@lru_cache(maxsize=2)
def _permute_samples(n_samples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n_samples)
