"""How evenly a pack plan mixes what it holds: tokens by category and by modality, and pictures over packs.

Belongs here: counting while a plan is made, and its tables for the UI. Does not: packing (`packing`), how evenly ranks
are loaded (`order`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mvl_training.data.token_counts import Member

Axis = Literal["category", "modality"]
AXES: tuple[Axis, ...] = ("category", "modality")


@dataclass(frozen=True, slots=True)
class Share:
    """What one category or modality brings. Tokens include `visual` ones and `targets`. `least` and `most` are its
    share of the targets in the shard of the plan that has the least and the most of it: both are near its share of all
    when a stage sees the same mixture from its first step to its last."""

    axis: Axis
    name: str
    samples: int
    tokens: int
    targets: int
    visual: int
    least: float
    most: float


class Balance:
    """Sees a plan's shards one after another; holds a few numbers of each."""

    def __init__(self) -> None:
        self._shards: list[dict[Axis, Counter[str]]] = []  # targets
        self._totals: dict[Axis, dict[str, Counter[str]]] = {axis: {} for axis in AXES}
        self._visual_percent: Counter[int] = Counter()

    def see(self, packs: Sequence[Sequence[Member]]) -> None:
        """One shard's packs."""
        targets: dict[Axis, Counter[str]] = {axis: Counter() for axis in AXES}
        for members in packs:
            for member in members:
                counts = member.counts
                named: tuple[tuple[Axis, str], ...] = (("category", member.category), ("modality", member.modality))
                for axis, name in named:
                    targets[axis][name] += counts.targets
                    total = self._totals[axis].setdefault(name, Counter())
                    total["samples"] += 1
                    total["tokens"] += counts.tokens
                    total["targets"] += counts.targets
                    total["visual"] += counts.visual
            visual = sum(member.counts.visual for member in members)
            self._visual_percent[round(100 * visual / sum(member.counts.tokens for member in members))] += 1
        self._shards.append(targets)

    def shares(self) -> list[Share]:
        """By category, then by modality; the largest share of the targets first."""
        found = []
        for axis in AXES:
            largest_first = sorted(self._totals[axis].items(), key=lambda item: (-item[1]["targets"], item[0]))
            for name, total in largest_first:
                in_shards = [shard[axis][name] / shard[axis].total() for shard in self._comparable()]
                found.append(Share(axis, name, **total, least=min(in_shards), most=max(in_shards)))
        return found

    def visual_share_of_packs(self) -> dict[str, float]:
        """The share of visual tokens in a pack: that of the twentieth with the fewest, the middle, the most."""
        shares, packs = np.array(list(self._visual_percent)), np.array(list(self._visual_percent.values()))
        found = np.percentile(shares, [5, 50, 95], weights=packs, method="inverted_cdf") / 100
        return dict(zip(("p5", "median", "p95"), found.tolist(), strict=True))

    def _comparable(self) -> list[dict[Axis, Counter[str]]]:
        """Without a last shard of a few rows, whose shares are chance."""
        *full, last = self._shards
        few = full and last["category"].total() < full[0]["category"].total() / 8
        return full if few else self._shards


def shares_table(shares: Sequence[Mapping[str, Any]]) -> str:
    """`Share`s as the report has them, in markdown."""
    targets = {axis: sum(one["targets"] for one in shares if one["axis"] == axis) for axis in AXES}
    lines = [
        "| by | | samples | tokens | visual tokens | target tokens | share of targets | lowest, highest of a shard |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['axis']} | {one['name']} | {one['samples']:,} | {one['tokens']:,} | {one['visual']:,}"
        f" | {one['targets']:,} | {one['targets'] / targets[one['axis']]:.1%} | {one['least']:.1%}, {one['most']:.1%} |"
        for one in shares
    ]
    return "\n".join(lines)


def loads_table(loads: Sequence[Mapping[str, Any]]) -> str:
    """The straggler efficiency of several numbers of ranks, in markdown."""
    lines = ["| ranks | packs of a rank in a step | even in tokens | even in tiles |", "|---|---|---|---|"]
    lines += [f"| {one['ranks']} | {one['micro_steps']} | {one['tokens']:.3f} | {one['tiles']:.3f} |" for one in loads]
    return "\n".join(lines)
