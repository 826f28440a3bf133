"""The three mixtures: which rows a training stage takes, and how many of each category and kind.

Shares of the categories come first (paper, Figure 3). Within a category that has rewritten pairs, 70% of the rows are
rewritten and 30% original (§2.3); where either runs short the other fills the category's share. What a category cannot
fill is reported as a shortfall; rows are repeated only if `upsample` is set.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.config.profile import MixtureConfig, Profile
from mvl_assets.config.project import load_project
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.training_tables import MIXTURE
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.candidates import KeptRewrites, Quota, SourceGroups, open_candidate_pool

ALIGNMENT_CATEGORY = "alignment"
MULTI_IMAGE_CATEGORIES = ("multi_image", "video")


@dataclass(frozen=True, slots=True)
class CategoryFill:
    """How far one category filled its target in one training stage, in rows."""

    category: str
    target: int
    available: int
    selected: int
    rewritten: int

    @property
    def shortfall(self) -> int:
        """Rows that are missing."""
        return self.target - self.selected


@dataclass(frozen=True, slots=True)
class MixtureReport:
    """Result of building the mixture of one training stage."""

    stage: str
    fills: list[CategoryFill]
    kept_rewrites: list[KeptRewrites]
    published: PublishResult


CandidateCounts = dict[tuple[str, str], int]


def compute_targets(mixture: MixtureConfig, stage: str) -> dict[str, int]:
    """Return the target rows of each category in a training stage."""
    own_categories = {c for c, config in load_project().categories.items() if config.multi_image}
    multi_image_categories = own_categories.union(MULTI_IMAGE_CATEGORIES)
    single_image_shares = {c: s for c, s in mixture.shares.items() if c not in multi_image_categories}
    multi_image_shares = {c: s for c, s in mixture.shares.items() if c in multi_image_categories}
    if stage == "alignment":
        return {ALIGNMENT_CATEGORY: mixture.alignment}
    if stage == "single_image":
        return apportion(mixture.single_image, single_image_shares)
    n_single_image = round(mixture.one_vision * mixture.one_vision_single_share)
    return apportion(n_single_image, single_image_shares) | apportion(
        mixture.one_vision - n_single_image, multi_image_shares
    )


def apportion(total: int, shares: dict[str, float]) -> dict[str, int]:
    """Divide `total` by shares into whole rows that add up to it (largest remainder method)."""
    total_share = sum(shares.values())
    if not total_share:
        return dict.fromkeys(shares, 0)
    exact = {c: total * s / total_share for c, s in shares.items()}
    floors = {c: int(x) for c, x in exact.items()}
    remainder = total - sum(floors.values())
    for category in sorted(exact, key=lambda c: (floors[c] - exact[c], c))[:remainder]:
        floors[category] += 1
    return floors


def build_quotas(mixture: MixtureConfig, stage: str, counts: CandidateCounts) -> tuple[list[Quota], list[CategoryFill]]:
    """Return what a stage takes of the available rows, and how far they fill it.

    one_vision starts where single_image stopped, so that no row is in both.
    """
    already_used = _count_single_image_use(mixture, counts) if stage == "one_vision" else {}
    category_quotas: list[Quota] = []
    fills: list[CategoryFill] = []
    for category, target in compute_targets(mixture, stage).items():
        available = {
            kind: counts.get((category, kind), 0) - already_used.get((category, kind), 0)
            for kind in ("rewritten", "original")
        }
        selected = split_by_kind(target, available["rewritten"], available["original"], mixture.rewritten_share)
        for kind, count in selected.items():
            category_quotas.append(Quota(category, kind, already_used.get((category, kind), 0), count))
        total = sum(selected.values())
        if mixture.upsample and total:
            for copy, n_repeated in enumerate(_compute_repeat_counts(target - total, total), 1):
                category_quotas.extend(_upsample(category_quotas, category, n_repeated, copy))
                total += n_repeated
        fills.append(CategoryFill(category, target, sum(available.values()), total, selected["rewritten"]))
    return category_quotas, fills


def split_by_kind(
    target: int, available_rewritten: int, available_original: int, rewritten_share: float
) -> dict[str, int]:
    """Return how many rewritten and original rows fill `target`. Without rewritten rows all are original.

    Args:
        target: Rows wanted in all.
        available_rewritten: Rewritten rows there are.
        available_original: Original rows there are.
        rewritten_share: Wanted share of rewritten rows, from 0 to 1; what one kind lacks, the other fills.

    Returns:
        Rows by kind, `rewritten` and `original`; their sum is less than `target` if both kinds together have fewer.
    """
    if not available_rewritten:
        return {"rewritten": 0, "original": min(target, available_original)}
    n_rewritten = min(available_rewritten, round(target * rewritten_share))
    n_original = min(available_original, target - n_rewritten)
    n_rewritten = min(available_rewritten, target - n_original)
    return {"rewritten": n_rewritten, "original": n_original}


def _count_single_image_use(mixture: MixtureConfig, counts: CandidateCounts) -> CandidateCounts:
    single_image_quotas, _ = build_quotas(mixture, "single_image", counts)
    return {(q.category, q.kind): q.n_rows for q in single_image_quotas if q.repeat_index == 0}


def _compute_repeat_counts(n_missing: int, n_rows: int) -> list[int]:
    return (
        [n_rows] * (n_missing // n_rows) + ([n_missing % n_rows] if n_missing % n_rows else []) if n_missing > 0 else []
    )


def _upsample(category_quotas: list[Quota], category: str, n_remaining: int, repeat_index: int) -> list[Quota]:
    repeated: list[Quota] = []
    for quota in [q for q in category_quotas if q.category == category and q.repeat_index == 0]:
        n_taken = min(n_remaining, quota.n_rows)
        repeated.append(Quota(category, quota.kind, quota.start, n_taken, repeat_index))
        n_remaining -= n_taken
    return repeated


def build_mixture(
    lake: Lake, profile: Profile, stage: str, *, run_id: str, groups: SourceGroups | None = None
) -> MixtureReport:
    """Publish `mixture/<stage>`: references to samples and rewrites in their final, seeded order.

    Args:
        lake: The lake to read from and write to.
        profile: Gives the mixture's settings.
        stage: The training stage.
        run_id: Id of the run, stored with every row.
        groups: Sources that may be used, by category, with their groups; None uses all that are stored.
    """
    mixture = profile.mixture
    categories = list(compute_targets(mixture, stage))
    with open_candidate_pool(
        lake,
        categories,
        seed=mixture.seed,
        holdout_fraction=profile.holdout_fraction,
        exclusion_tables=_list_exclusion_tables(profile),
        groups=groups,
    ) as pool:
        stage_quotas, fills = build_quotas(mixture, stage, pool.count_candidates())
        kept_rewrites = pool.count_kept_rewrites()
        rows = (_add_run_id(batch, run_id) for batch in pool.iter_selected(stage_quotas, stage))
        published = lake.get_table(f"mixture/{stage}").publish(rows)
    return MixtureReport(stage, fills, kept_rewrites, published)


def _list_exclusion_tables(profile: Profile) -> list[str]:
    if profile.paper_parity:
        return []
    switches = {
        "curation/duplicates": profile.mixture.drop_duplicates,
        "curation/contamination": profile.mixture.drop_contaminated,
    }
    return [name for name, is_on in switches.items() if is_on]


def _add_run_id(rows: pa.Table, run_id: str) -> pa.Table:
    return rows.append_column("run_id", pa.repeat(pa.scalar(run_id), len(rows))).select(MIXTURE.columns.names)
