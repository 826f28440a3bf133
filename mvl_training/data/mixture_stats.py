"""How evenly a pack plan mixes its samples: tokens by category and by modality, visual tokens over samples.

Counted while a plan is made, and rendered as tables for the UI.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mvl_training.data.token_counts import CountedSample

Axis = Literal["category", "modality"]
AXES: tuple[Axis, ...] = ("category", "modality")


@dataclass(frozen=True, slots=True)
class ShareStats:
    """The share of one category or modality.

    Attributes:
        axis: Whether `name` is a category or a modality.
        name: The category or modality.
        n_samples: Number of samples.
        n_tokens: Tokens, visual and loss tokens among them.
        n_loss_tokens: Tokens that the loss is taken on.
        n_visual_tokens: Tokens of images and videos.
        min_shard_share: Its lowest share of the loss tokens in any shard of the plan. Both extremes are near its share
            of all loss tokens if the stage sees the same mixture from the first step to the last.
        max_shard_share: Its highest share in any shard.
    """

    axis: Axis
    name: str
    n_samples: int
    n_tokens: int
    n_loss_tokens: int
    n_visual_tokens: int
    min_shard_share: float
    max_shard_share: float


class MixtureStats:
    """Statistics over the shards of a plan, added one by one; keeps a few numbers per shard."""

    def __init__(self) -> None:
        self._loss_tokens_by_shard: list[dict[Axis, Counter[str]]] = []
        self._totals_by_axis: dict[Axis, dict[str, Counter[str]]] = {axis: {} for axis in AXES}
        self._samples_by_visual_percent: Counter[int] = Counter()

    def update(self, samples_of_shard: Sequence[CountedSample]) -> None:
        """Add the samples of one shard."""
        loss_tokens: dict[Axis, Counter[str]] = {axis: Counter() for axis in AXES}
        for sample in samples_of_shard:
            cost = sample.cost
            axis_names: tuple[tuple[Axis, str], ...] = (("category", sample.category), ("modality", sample.modality))
            for axis, name in axis_names:
                loss_tokens[axis][name] += cost.n_loss_tokens
                total = self._totals_by_axis[axis].setdefault(name, Counter())
                total["n_samples"] += 1
                total["n_tokens"] += cost.n_tokens
                total["n_loss_tokens"] += cost.n_loss_tokens
                total["n_visual_tokens"] += cost.n_visual_tokens
            self._samples_by_visual_percent[round(100 * cost.n_visual_tokens / cost.n_tokens)] += 1
        self._loss_tokens_by_shard.append(loss_tokens)

    def compute_shares(self) -> list[ShareStats]:
        """Return the shares by category, then by modality, each with the largest share of the loss tokens first."""
        shares = []
        for axis in AXES:
            largest_first = sorted(
                self._totals_by_axis[axis].items(), key=lambda item: (-item[1]["n_loss_tokens"], item[0])
            )
            for name, total in largest_first:
                shard_shares = [shard[axis][name] / shard[axis].total() for shard in self._list_comparable_shards()]
                shares.append(
                    ShareStats(
                        axis, name, **total, min_shard_share=min(shard_shares), max_shard_share=max(shard_shares)
                    )
                )
        return shares

    def compute_visual_share_percentiles(self) -> dict[str, float]:
        """Return the 5th, 50th and 95th percentile over samples of the share of visual tokens in a sample."""
        shares, n_samples = (
            np.array(list(self._samples_by_visual_percent)),
            np.array(list(self._samples_by_visual_percent.values())),
        )
        percentiles = np.percentile(shares, [5, 50, 95], weights=n_samples, method="inverted_cdf") / 100
        return dict(zip(("p5", "median", "p95"), percentiles.tolist(), strict=True))

    def _list_comparable_shards(self) -> list[dict[Axis, Counter[str]]]:
        """Return all shards, without a last one of a few rows, whose shares would be chance."""
        *full, last = self._loss_tokens_by_shard
        is_last_partial = full and last["category"].total() < full[0]["category"].total() / 8
        return full if is_last_partial else self._loss_tokens_by_shard


def render_shares_table(shares: Sequence[Mapping[str, Any]]) -> str:
    """Render the shares of a report (`ShareStats` as dictionaries) as a markdown table that fits the page."""
    loss_tokens = {axis: sum(share["n_loss_tokens"] for share in shares if share["axis"] == axis) for axis in AXES}
    lines = [
        "| by | | samples | tokens (visual) | loss tokens (share) | of a shard |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {share['axis']} | {share['name']} | {share['n_samples']:,}"
        f" | {share['n_tokens']:,} ({share['n_visual_tokens']:,})"
        f" | {share['n_loss_tokens']:,} ({share['n_loss_tokens'] / loss_tokens[share['axis']]:.1%})"
        f" | {share['min_shard_share']:.1%} to {share['max_shard_share']:.1%} |"
        for share in shares
    ]
    return "\n".join(lines)
