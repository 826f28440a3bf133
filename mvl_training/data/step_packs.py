"""Packs of a step: its samples divided over ranks and micro-steps, so that ranks hardly wait for each other.

Under ZeRO-2 and ZeRO-3 the ranks exchange weights or gradients in every micro-step, so that each micro-step takes as
long as its largest pack. The work of a pack is what its samples cost in floating-point operations, forward and
backward, of text and tiles; its tokens only limit how many fit into memory, since a sequence of packed samples need not
be full. The packs are a function of the step's samples, the limits and the number of ranks, so every rank computes them
for itself, and a run that resumes on another number of ranks trains on the same samples. No torch.

Samples are assigned by longest processing time first (Graham, SIAM J. Applied Mathematics 17(2), 1969): from the one
with the most work down, each goes into the pack with the least work in which it fits. Then samples of the largest pack
are exchanged for those of others as long as that makes it smaller. There are as few micro-steps as the limits allow,
because a micro-step gathers all weights whatever its pack holds. Packs of similar work share a micro-step.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from mvl_assets.common.training_stages import TrainingStage
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import SampleCounts
from mvl_training.data.students.open_inputs import count_tile_tokens
from mvl_training.recipe import Recipe

TILE_LIMIT_FACTOR = 8
"""A pack's tile limit, as a multiple of the tiles whose features would just fill it: bounds the vision tower's memory.
Images of many tiles are shrunk to few tokens, so a limit near 1 would leave packs of them half empty."""

FLOPS_PER_WORK_UNIT = 1e6
"""Work is counted in whole units, whose sums are the same on every machine."""

EVEN_ENOUGH = 1.002
"""A largest pack of at most this multiple of the mean is not made smaller."""

MAX_EXCHANGES = 256
"""Most exchanges of samples between packs in a step; each takes 0.1 ms."""

SampleFlops = Callable[[SampleCounts], np.ndarray]
"""Returns the floating-point operations of each sample, float64 (N,)."""


class CountsReader(Protocol):
    """Counts of samples by position: a pack plan, its packed rows, or drawn ones."""

    def read_counts(self, positions: np.ndarray) -> SampleCounts:
        """Return the counts of the samples at these positions, in their order."""


@dataclass(frozen=True, slots=True)
class PackLimits:
    """What fits into a pack.

    Attributes:
        max_tokens: Most tokens.
        max_tiles: Most tiles, unless one sample alone has more; that one shares its pack with text only.
    """

    max_tokens: int
    max_tiles: int

    @classmethod
    def for_stage(cls, recipe: Recipe, stage: TrainingStage) -> PackLimits:
        """Return the limits of a stage's packs."""
        return cls.from_tokens(recipe.get_stage(stage).pack_tokens, count_tile_tokens(recipe))

    @classmethod
    def from_tokens(cls, max_tokens: int, tokens_per_tile: int) -> PackLimits:
        """Return the limits of packs of at most `max_tokens` tokens, of a student whose tiles become so many each."""
        return cls(max_tokens, max(8, TILE_LIMIT_FACTOR * max_tokens // tokens_per_tile))


@dataclass(frozen=True, slots=True)
class StepPacks:
    """The packs of a step.

    Attributes:
        packs_by_rank: Positions of the samples in the plan, by rank, micro-step and place in the pack. A pack may be
            empty; all ranks have the same number of micro-steps.
        counts: Counts of all samples of the step.
        work: Work of all samples.
        lockstep_work: Work of the largest pack of each micro-step, summed over the micro-steps: what each rank's time
            is proportional to.
        unpacked_lockstep_work: The same with one sample per pack in the order of the plan, as the released code trains.
    """

    packs_by_rank: list[list[list[int]]]
    counts: SampleCounts
    work: int
    lockstep_work: int
    unpacked_lockstep_work: int

    @property
    def grad_accum_steps(self) -> int:
        """Micro-steps of the step."""
        return len(self.packs_by_rank[0])

    @property
    def lockstep_efficiency(self) -> float:
        """Share of the ranks' time in which they work instead of waiting for the slowest."""
        return self.work / (len(self.packs_by_rank) * self.lockstep_work)


class StepPacker:
    """Makes the packs of the steps of a stage.

    Args:
        plan: Has the counts of the stage's samples.
        batch_order: Says which samples make up a step.
        sample_flops: Estimates what samples cost.
        limits: Limits of a pack.
        world_size: Number of ranks.
    """

    def __init__(
        self,
        plan: CountsReader,
        batch_order: BatchOrder,
        sample_flops: SampleFlops,
        limits: PackLimits,
        world_size: int,
    ) -> None:
        self.batch_order = batch_order
        self._plan = plan
        self._sample_flops = sample_flops
        self._limits = limits
        self._world_size = world_size
        # The loader, which reads ahead, and the loop ask for the same steps.
        self.pack_step = lru_cache(maxsize=16)(self._pack_step)

    def _pack_step(self, step: int) -> StepPacks:
        """Return the packs of a step (from 0)."""
        positions = self.batch_order.list_step_samples(step)
        counts = self._plan.read_counts(positions)
        return pack_samples(positions, counts, self._sample_flops(counts), self._limits, self._world_size)


def pack_samples(
    positions: np.ndarray, counts: SampleCounts, flops_N: np.ndarray, limits: PackLimits, world_size: int
) -> StepPacks:
    """Divide the samples of a step over ranks and micro-steps.

    No arrangement of one sample per pack takes less time: where packing would take more, samples are left alone.

    Args:
        positions: Positions of the samples in the plan.
        counts: Their counts.
        flops_N: What each costs.
        limits: Limits of a pack.
        world_size: Number of ranks.
    """
    work_N = np.maximum(1, np.rint(flops_N / FLOPS_PER_WORK_UNIT)).astype(np.int64)
    longest_first = np.argsort(-work_N, kind="stable")
    packs = _fill_packs(longest_first.tolist(), work_N.tolist(), counts, limits, world_size)
    packs = _exchange_samples(packs, work_N, counts, limits)
    # The largest first; packs that stayed empty come last and are dropped.
    packs = sorted(filter(None, packs), key=lambda pack: (-int(work_N[pack].sum()), pack))
    lockstep_work = sum(int(work_N[pack].sum()) for pack in packs[::world_size])
    if lockstep_work > (sorted_work := int(work_N[longest_first][::world_size].sum())):
        packs, lockstep_work = [[index] for index in longest_first.tolist()], sorted_work
    packs += [[] for _ in range(-len(packs) % world_size)]
    packs_by_rank: list[list[list[int]]] = [[] for _ in range(world_size)]
    for start in range(0, len(packs), world_size):
        # Every second micro-step the other way round, which evens out the sums of the ranks.
        micro_step = packs[start : start + world_size][:: -1 if start // world_size % 2 else 1]
        for rank, pack in enumerate(micro_step):
            packs_by_rank[rank].append([int(positions[index]) for index in sorted(pack)])
    unpacked_work = int(np.maximum.reduceat(work_N, np.arange(0, len(work_N), world_size)).sum())
    return StepPacks(packs_by_rank, counts, int(work_N.sum()), lockstep_work, unpacked_work)


def _fill_packs(
    longest_first: Sequence[int], work: Sequence[int], counts: SampleCounts, limits: PackLimits, world_size: int
) -> list[list[int]]:
    """Return the packs of the least number of micro-steps that takes all samples."""
    tokens, tiles = counts.n_tokens.tolist(), counts.n_tiles.tolist()
    n_packs = world_size * max(
        1,
        -(-sum(tokens) // (limits.max_tokens * world_size)),
        # One sample with more tiles than the limit may be in each pack.
        -(-sum(min(n_tiles, limits.max_tiles) for n_tiles in tiles) // (limits.max_tiles * world_size)),
    )
    while (packs := _try_to_fill(longest_first, work, tokens, tiles, limits, n_packs)) is None:
        n_packs += world_size
    return packs


def _try_to_fill(
    longest_first: Sequence[int],
    work: Sequence[int],
    tokens: Sequence[int],
    tiles: Sequence[int],
    limits: PackLimits,
    n_packs: int,
) -> list[list[int]] | None:
    """Return `n_packs` packs, None if a sample fits into none of them."""
    packs: list[list[int]] = [[] for _ in range(n_packs)]
    free_tokens, free_tiles = [limits.max_tokens] * n_packs, [limits.max_tiles] * n_packs
    least_work_first = [(0, pack) for pack in range(n_packs)]
    for index in longest_first:
        too_full = []
        while least_work_first:
            pack_work, pack = heapq.heappop(least_work_first)
            if not packs[pack] or (tokens[index] <= free_tokens[pack] and tiles[index] <= max(0, free_tiles[pack])):
                break
            too_full.append((pack_work, pack))
        else:
            return None
        packs[pack].append(index)
        free_tokens[pack] -= tokens[index]
        free_tiles[pack] -= tiles[index]
        for entry in (*too_full, (pack_work + work[index], pack)):
            heapq.heappush(least_work_first, entry)
    return packs


def _exchange_samples(
    packs: Sequence[Sequence[int]], work_N: np.ndarray, counts: SampleCounts, limits: PackLimits
) -> list[list[int]]:
    """Exchange samples of the largest pack for smaller ones of other packs, or for nothing, while that helps.

    What is exchanged are candidates: the samples, and after them one nothing per pack, which stays where it is.
    """
    n_samples, n_packs = len(work_N), len(packs)
    work, tokens, tiles = (
        np.concatenate([values_N.astype(np.int64), np.zeros(n_packs, dtype=np.int64)])
        for values_N in (work_N, counts.n_tokens, counts.n_tiles)
    )
    pack_by_candidate = np.concatenate([np.zeros(n_samples, dtype=np.int64), np.arange(n_packs)])
    for pack, members in enumerate(packs):
        pack_by_candidate[list(members)] = pack
    pack_work, pack_tokens, pack_tiles = (
        np.array([int(values[list(members)].sum()) for members in packs]) for values in (work, tokens, tiles)
    )
    for _ in range(MAX_EXCHANGES):
        largest = int(pack_work.argmax())
        if pack_work[largest] * n_packs <= EVEN_ENOUGH * pack_work.sum():
            break
        own = np.flatnonzero(pack_by_candidate[:n_samples] == largest)
        given_work, given_tokens, given_tiles = (values[own][:, None] - values for values in (work, tokens, tiles))
        new_tokens, new_tiles = (
            np.maximum(totals[largest] - given, totals[pack_by_candidate] + given)
            for totals, given in ((pack_tokens, given_tokens), (pack_tiles, given_tiles))
        )
        new_work = np.maximum(pack_work[largest] - given_work, pack_work[pack_by_candidate] + given_work)
        is_allowed = (new_tokens <= limits.max_tokens) & (new_tiles <= limits.max_tiles)
        new_work[~is_allowed | (pack_by_candidate == largest)] = pack_work[largest]
        row, other = np.unravel_index(int(new_work.argmin()), new_work.shape)
        if new_work[row, other] >= pack_work[largest]:
            break
        target = int(pack_by_candidate[other])
        for totals, given in ((pack_work, given_work), (pack_tokens, given_tokens), (pack_tiles, given_tiles)):
            totals[largest] -= given[row, other]
            totals[target] += given[row, other]
        pack_by_candidate[own[row]] = target
        if other < n_samples:
            pack_by_candidate[other] = largest
    return [np.flatnonzero(pack_by_candidate[:n_samples] == pack).tolist() for pack in range(n_packs)]
