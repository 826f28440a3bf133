"""The three mixtures: which rows a training stage takes, planned from counts or published as a table.

`quotas` says how many rows of what; which ones follows from the seed and the ids of the samples alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import load_prompts
from mvl_assets.curation.quotas import CategoryFill, SourceFill, StageFill, fill_stage
from mvl_assets.curation.strata import resolve_strata
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.training_tables import MIXTURE
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.mixtures.candidate_tables import LicenseRules, SourceGroups, open_candidate_pool
from mvl_assets.lake_queries.mixtures.candidates import CandidatePool, ClauseCount, KeptRewrites, UnlicensedRows
from mvl_assets.lake_queries.mixtures.row_filter import RowFilter, parse_row_filter
from mvl_assets.lake_queries.mixtures.score_columns import ScoreCatalog, list_score_types


@dataclass(frozen=True, slots=True)
class MixturePlan:
    """What a mixture takes of each category and source, and which rows cannot be taken.

    Attributes:
        clauses: What each clause of the profile's `where` refuses.
        unlicensed: What is refused for its licences.
    """

    stage: str
    fills: list[CategoryFill]
    source_fills: list[SourceFill]
    kept_rewrites: list[KeptRewrites]
    clauses: list[ClauseCount]
    unlicensed: list[UnlicensedRows]


@dataclass(frozen=True, slots=True)
class MixtureReport(MixturePlan):
    """Result of building the mixture of one training stage."""

    published: PublishResult


def build_mixture(
    lake: Lake,
    profile: Profile,
    stage: str,
    *,
    run_id: str,
    groups: SourceGroups | None = None,
    keep_condition: str = "keep",
) -> MixtureReport:
    """Publish `mixture/<stage>`: references to samples and rewrites in their final, seeded order.

    Args:
        lake: The lake to read from and write to.
        profile: Gives the mixture's settings.
        stage: The training stage.
        run_id: Id of the run, stored with every row.
        groups: Sources that may be used, by category, with their groups; None uses all that are stored.
        keep_condition: Which rewrites are kept, in SQL (`judging.keep.format_keep_condition`): as they were judged, or
            by another rule.
    """
    with open_mixture(lake, profile, [stage], groups, keep_condition) as (pool, fills):
        fill = fills[stage]
        counts = pool.count_kept_rewrites(), pool.count_clauses(), pool.count_unlicensed()
        rows = (_add_run_id(batch, run_id) for batch in pool.iter_selected(fill.quotas, stage))
        published = lake.get_table(f"mixture/{stage}").publish(rows)
    return MixtureReport(stage, fill.categories, fill.sources, *counts, published)


def plan_mixtures(
    lake: Lake,
    profile: Profile,
    stages: Iterable[str],
    groups: SourceGroups | None = None,
    keep_condition: str = "keep",
) -> list[MixturePlan]:
    """Return what the mixtures of training stages would take, and write nothing. Takes what `build_mixture` does."""
    with open_mixture(lake, profile, list(stages), groups, keep_condition) as (pool, fills):
        kept_rewrites, clauses, unlicensed = pool.count_kept_rewrites(), pool.count_clauses(), pool.count_unlicensed()
    plans = []
    for stage, fill in fills.items():
        targets = profile.mixture.compute_targets(stage)
        plans.append(
            MixturePlan(
                stage,
                fill.categories,
                fill.sources,
                [kept for kept in kept_rewrites if kept.category in targets],
                [clause for clause in clauses if clause.category in targets],
                [refused for refused in unlicensed if refused.category in targets],
            )
        )
    return plans


@contextmanager
def open_mixture(
    lake: Lake,
    profile: Profile,
    stages: list[str],
    groups: SourceGroups | None = None,
    keep_condition: str = "keep",
) -> Iterator[tuple[CandidatePool, dict[str, StageFill]]]:
    """Open the candidates of training stages, with what each stage takes of them. Takes what `build_mixture` does.

    Raises:
        MvlError: The column of the strata does not exist, does not go with the edges, or has too many values; or the
            filter cannot be read.
    """
    mixture = profile.mixture
    with open_candidate_pool(
        lake,
        list(dict.fromkeys(category for stage in stages for category in mixture.compute_targets(stage))),
        seed=mixture.seed,
        holdout_fraction=profile.holdout_fraction,
        exclusion_tables=_list_exclusion_tables(profile),
        groups=groups,
        strata=None if mixture.strata is None else resolve_strata(mixture.strata),
        row_filter=resolve_filter(profile),
        score_catalog=_build_score_catalog(profile),
        license_rules=LicenseRules(profile.licences, {model.name: model.license for model in profile.models.values()}),
        keep_condition=keep_condition,
    ) as pool:
        counts = pool.count_candidates()
        rewritten_categories = frozenset(c for c, sources in (groups or {}).items() if "B" in sources.values())
        yield pool, {stage: fill_stage(mixture, stage, counts, rewritten_categories) for stage in stages}


def resolve_filter(profile: Profile) -> RowFilter | None:
    """Return the profile's `where`, checked; None without one.

    Raises:
        MvlError: It cannot be read, or names what no row has.
    """
    if profile.where is None:
        return None
    return parse_row_filter(profile.where, list_score_types(_build_score_catalog(profile)))


def _build_score_catalog(profile: Profile) -> ScoreCatalog:
    judge_prompts = [prompt for prompt in load_prompts(profile=profile).values() if prompt.role == "judge"]
    return ScoreCatalog(
        criteria=sorted({prompt.criterion_name for prompt in judge_prompts}),
        panel_rule=profile.judging.panel_rule,
        foreign={name: file.columns for name, file in profile.scores.items()},
    )


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
