"""The three mixtures: how many rows of each category and kind a stage takes, and which.

Shares of the categories come first (paper, Figure 3). Within a category that has rewritten pairs, 70% of the rows are
rewritten and 30% original (§2.3); where either runs short the other fills the category's share. What a category cannot
fill is reported as a shortfall and never filled by repeating rows, unless `upsample` is set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.config.profile import Mixture, Profile
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import MIXTURE
from mvl_assets.lake.table import Published
from mvl_assets.lake_queries.candidates import Groups, Quota, candidate_pool

ALIGNMENT = "alignment"
MOVING = ("multi_image", "video")


@dataclass(frozen=True, slots=True)
class Fill:
    """How one category fared in one stage, in rows."""

    category: str
    target: int
    available: int
    taken: int
    rewritten: int

    @property
    def shortfall(self) -> int:
        return self.target - self.taken


@dataclass(frozen=True, slots=True)
class MixReport:
    """What one stage's manifest holds."""

    stage: str
    fills: list[Fill]
    published: Published


Counts = dict[tuple[str, str], int]


def targets(mixture: Mixture, stage: str) -> dict[str, int]:
    """Rows wanted of each category in a stage."""
    single = {c: s for c, s in mixture.shares.items() if c not in MOVING}
    moving = {c: s for c, s in mixture.shares.items() if c in MOVING}
    if stage == "alignment":
        return {ALIGNMENT: mixture.alignment}
    if stage == "single_image":
        return apportion(mixture.single_image, single)
    still = round(mixture.one_vision * mixture.one_vision_single_share)
    return apportion(still, single) | apportion(mixture.one_vision - still, moving)


def apportion(total: int, shares: dict[str, float]) -> dict[str, int]:
    """`total` divided by shares into whole rows that add up to it (largest remainder)."""
    whole = sum(shares.values())
    if not whole:
        return dict.fromkeys(shares, 0)
    exact = {c: total * s / whole for c, s in shares.items()}
    floors = {c: int(x) for c, x in exact.items()}
    left = total - sum(floors.values())
    for category in sorted(exact, key=lambda c: (floors[c] - exact[c], c))[:left]:
        floors[category] += 1
    return floors


def quotas(mixture: Mixture, stage: str, counts: Counts) -> tuple[list[Quota], list[Fill]]:
    """What a stage takes of what is there. one_vision starts where single_image stopped: no row is in both."""
    before = _taken(mixture, counts) if stage == "one_vision" else {}
    chosen: list[Quota] = []
    fills: list[Fill] = []
    for category, target in targets(mixture, stage).items():
        free = {
            kind: counts.get((category, kind), 0) - before.get((category, kind), 0)
            for kind in ("rewritten", "original")
        }
        taken = split(target, free["rewritten"], free["original"], mixture.rewritten_share)
        for kind, count in taken.items():
            chosen.append(Quota(category, kind, before.get((category, kind), 0), count))
        total = sum(taken.values())
        if mixture.upsample and total:
            for copy, repeat in enumerate(_repeats(target - total, total), 1):
                chosen.extend(_again(chosen, category, repeat, copy))
                total += repeat
        fills.append(Fill(category, target, sum(free.values()), total, taken["rewritten"]))
    return chosen, fills


def split(target: int, rewritten: int, original: int, share: float) -> dict[str, int]:
    """How many rewritten and original rows fill `target`, given how many there are. 70/30 only where there are both."""
    if not rewritten:
        return {"rewritten": 0, "original": min(target, original)}
    new = min(rewritten, round(target * share))
    old = min(original, target - new)
    new = min(rewritten, target - old)
    return {"rewritten": new, "original": old}


def _taken(mixture: Mixture, counts: Counts) -> Counts:
    used, _ = quotas(mixture, "single_image", counts)
    return {(q.category, q.kind): q.count for q in used if q.copy == 0}


def _repeats(missing: int, whole: int) -> list[int]:
    return [whole] * (missing // whole) + ([missing % whole] if missing % whole else []) if missing > 0 else []


def _again(chosen: list[Quota], category: str, count: int, copy: int) -> list[Quota]:
    out: list[Quota] = []
    for quota in [q for q in chosen if q.category == category and q.copy == 0]:
        part = min(count, quota.count)
        out.append(Quota(category, quota.kind, quota.start, part, copy))
        count -= part
    return out


def mix(lake: Lake, profile: Profile, stage: str, *, run_id: str, groups: Groups | None = None) -> MixReport:
    """Writes `mixture/<stage>`: references to samples and rewrites in their final, seeded order.

    `groups` are the sources that count, by category, with their groups; None takes all that are stored.
    """
    mixture = profile.mixture
    categories = list(targets(mixture, stage))
    with candidate_pool(
        lake,
        categories,
        seed=mixture.seed,
        holdout=profile.holdout,
        excluded=_excluded(lake, profile),
        groups=groups,
    ) as pool:
        chosen, fills = quotas(mixture, stage, pool.counts())
        rows = (_with_run(batch, run_id) for batch in pool.choose(chosen, stage))
        published = lake.table(f"mixture/{stage}").publish(rows)
    return MixReport(stage, fills, published)


def _excluded(lake: Lake, profile: Profile) -> Iterable[str]:
    if profile.paper_parity:
        return
    if profile.mixture.drop_duplicates:
        for row in lake.table("curation/duplicates").rows(["sample_id"]):
            yield row["sample_id"]
    if profile.mixture.drop_contaminated:
        for row in lake.table("curation/contamination").rows(["sample_id"]):
            yield row["sample_id"]


def _with_run(batch: pa.RecordBatch, run_id: str) -> pa.Table:
    table = pa.table(batch).append_column("run_id", pa.array([run_id] * len(batch), pa.string()))
    return table.select(MIXTURE.columns.names)
