"""Assets `mixture/<stage>`: the rows that a training stage reads, unpartitioned, in their final order.

The profile says how many rows of what; `curation/mixing.py` selects them.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import list_all_categories
from mvl_assets.config.mixture_config import ALIGNMENT_CATEGORY
from mvl_assets.config.profile import Profile
from mvl_assets.curation.missed_shares import sum_rewrites
from mvl_assets.curation.mixing import resolve_filter
from mvl_assets.defs.curation import CONTAMINATION_KEY, DUPLICATES_KEY
from mvl_assets.lake_queries.views import read_first_mixture_rows
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_preview,
)
from mvl_assets.orchestration.mixture_page import (
    build_share_checks,
    build_share_results,
    render_fills,
    render_kept_rewrites,
    render_refused,
    render_source_fills,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.stages import CATEGORY, JUDGED, SCORES

STAGE_DESCRIPTIONS = {
    "alignment": "Image-caption pairs for the projector alone (paper, Table 1, stage 1).",
    "single_image": "Single images and text, by category shares and with a share of rewritten rows that the profile "
    "wants and the check `rewritten_share_met` compares (paper, Table 1, stage 2; Figure 3; §2.3).",
    "one_vision": "Single images that stage 2 did not take, multiple images, and video (paper, Table 1, stage 3).",
}


def build_mixture_asset(stage: str) -> dg.AssetsDefinition:
    """Return the asset `mixture/<stage>` of a training stage."""
    key = dg.AssetKey(["mixture", stage])
    stage_categories = [
        c for c in list_all_categories() if c != "released" and (c == ALIGNMENT_CATEGORY) == (stage == "alignment")
    ]
    upstream_keys = [
        *(dg.AssetKey([CATEGORY.name, c]) for c in asset_keys.list_categories() if c in stage_categories),
        *(dg.AssetKey([JUDGED.name, c]) for c in asset_keys.list_rewritten_categories() if c in stage_categories),
    ]
    profile = asset_keys.load_active_profile()
    # The tables keep the rows of a source that the catalog has moved to another group or category.
    groups_by_category = asset_keys.list_category_groups(stage_categories, profile)

    @dg.asset(
        key=key,
        code_version=asset_keys.compute_code_version(
            profile.mixture,
            profile.holdout_fraction,
            profile.paper_parity,
            groups_by_category,
            *([[profile.where, profile.licences]] if profile.where or profile.licences != "all" else []),
        ),
        group_name="mixture",
        deps=[*upstream_keys, DUPLICATES_KEY, CONTAMINATION_KEY, *_list_score_keys(profile)],
        description=STAGE_DESCRIPTIONS[stage],
        kinds={"lance", "duckdb"},
        owners=asset_keys.OWNERS,
        check_specs=[
            build_schema_check(key),
            *build_share_checks(key, profile.mixture),
        ],
    )
    def _materialize_mixture(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.mixing import build_mixture

        report = build_mixture(lake.lake, profile, stage, run_id=context.run_id, groups=groups_by_category)
        table = lake.lake.get_table(f"mixture/{stage}")
        preview_rows = read_first_mixture_rows(lake.lake, stage)
        n_rewritten, n_rows, n_rewritten_target, n_rows_target = sum_rewrites(profile.mixture, report.fills)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=build_table_metadata(
                table,
                {
                    metadata_keys.FILL: render_fills(profile.mixture, report),
                    metadata_keys.SOURCES: render_source_fills(report),
                    metadata_keys.SHORTFALL: sum(f.shortfall for f in report.fills),
                    metadata_keys.REWRITTEN_SHARE: n_rewritten / max(1, n_rows),
                    metadata_keys.REWRITTEN_SHARE_TARGET: n_rewritten_target / max(1, n_rows_target),
                    metadata_keys.REWRITES_KEPT: sum(k.kept for k in report.kept_rewrites),
                    metadata_keys.REWRITES_OUTDATED: sum(k.outdated for k in report.kept_rewrites),
                    metadata_keys.REWRITES_HELD_OUT: sum(k.held_out for k in report.kept_rewrites),
                    metadata_keys.REWRITES_EXCLUDED: sum(k.excluded for k in report.kept_rewrites),
                    metadata_keys.REWRITES_TAKEN: n_rewritten,
                    metadata_keys.REWRITES: render_kept_rewrites(report),
                    metadata_keys.REFUSED: render_refused(report, profile.licences),
                    metadata_keys.PREVIEW: render_preview(
                        lake.lake, preview_rows, ["row_id", "source", "kind", "question", "answer"]
                    ),
                },
                rows=report.published.n_rows,
            ),
            check_results=[build_schema_result(key, table), *build_share_results(key, profile.mixture, report)],
        )

    return _materialize_mixture


def _list_score_keys(profile: Profile) -> list[dg.AssetKey]:
    """Return the assets with scores of others that the profile's filter asks for."""
    row_filter = resolve_filter(profile)
    names = {column.partition(".")[0] for column in row_filter.columns if "." in column} if row_filter else set()
    return [dg.AssetKey([SCORES.name, name]) for name in profile.scores if name in names]


@dg.definitions
def defs() -> dg.Definitions:
    """Return the mixtures of all training stages."""
    return dg.Definitions(assets=[build_mixture_asset(stage) for stage in TRAINING_STAGES])
