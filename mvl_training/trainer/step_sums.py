"""Sums over the packs of a step that ranks add up: weights, loss tokens, skipped samples, losses by category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mvl_training.data.pack_loader import PackedBatch, SkippedSample

OTHER_CATEGORY = "other"
"""Of rows whose category the mixture no longer has: packed rows may be older than it."""


@dataclass(frozen=True, slots=True)
class StepTotals:
    """The sums of all ranks.

    Attributes:
        loss_weight: Weights of the loss tokens.
        n_loss_tokens: Loss tokens.
        n_skipped: Samples that were left out.
        mean_loss: Mean loss per loss token, without weights; None without any.
        loss_by_category: The same of the categories that have any.
    """

    loss_weight: float
    n_loss_tokens: int
    n_skipped: int
    mean_loss: float | None
    loss_by_category: dict[str, float]


class StepSums:
    """The sums of one rank.

    Args:
        categories: Equal on all ranks, and in the same order.

    Attributes:
        skipped: Samples that were left out.
    """

    def __init__(self, categories: Sequence[str]) -> None:
        self._categories = [*categories, OTHER_CATEGORY]
        self._loss_sums = dict.fromkeys(self._categories, 0.0)
        self._token_counts = dict.fromkeys(self._categories, 0)
        self._loss_weight = 0.0
        self._packs: list[tuple[Sequence[str], Sequence[int], torch.Tensor]] = []
        self.skipped: list[SkippedSample] = []

    def add(self, batch: PackedBatch, sample_losses_N: torch.Tensor) -> None:
        """Add a pack with the losses of its samples, which are read later: a device would have to finish first."""
        self._loss_weight += batch.loss_weight
        self.skipped += batch.skipped
        if batch.row_ids:
            self._packs.append((batch.categories, batch.n_loss_tokens_by_sample, sample_losses_N))

    def _read_packs(self) -> None:
        for categories, token_counts, sample_losses_N in self._packs:
            for category, loss, n_tokens in zip(categories, sample_losses_N.tolist(), token_counts, strict=True):
                known = category if category in self._loss_sums else OTHER_CATEGORY
                self._loss_sums[known] += loss
                self._token_counts[known] += n_tokens
        self._packs.clear()

    def to_list(self) -> list[float]:
        """Return the sums as numbers that can be added to those of another rank."""
        self._read_packs()
        counts = self._token_counts.values()
        return [self._loss_weight, len(self.skipped), *self._loss_sums.values(), *counts]

    def read_list(self, sums: Sequence[float]) -> StepTotals:
        """Return the totals of `to_list`, added up over the ranks."""
        loss_weight, n_skipped, *by_category = sums
        n_categories = len(self._categories)
        losses, counts = by_category[:n_categories], by_category[n_categories:]
        means = {c: loss / n for c, loss, n in zip(self._categories, losses, counts, strict=True) if n}
        mean_loss = sum(losses) / sum(counts) if sum(counts) else None
        return StepTotals(loss_weight, round(sum(counts)), round(n_skipped), mean_loss, means)
