"""Assets `mixture/<stage>`: the rows that a training stage reads, unpartitioned, in their final order.

The profile says how many rows of what; `curation/mixing.py` selects them.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import list_all_categories, list_partition_keys
from mvl_assets.defs.curation import CONTAMINATION_KEY, DUPLICATES_KEY
from mvl_assets.lake_queries.candidates import KeptRewrites
from mvl_assets.lake_queries.views import read_first_mixture_rows
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_markdown_table,
    render_preview,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.stages import CATEGORY, JUDGED

TARGETS_CHECK = "targets_met"
ALIGNMENT_CATEGORY = "alignment"
LINE_BREAK = "\u200b"  # where a narrow column may break a cell, and only there
STAGE_DESCRIPTIONS = {
    "alignment": "Image-caption pairs for the projector alone (paper, Table 1, stage 1).",
    "single_image": "Single images and text, by category shares and 70% rewritten where a category has rewrites "
    "(paper, Table 1, stage 2; Figure 3; §2.3).",
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
    groups_by_category = {
        category: asset_keys.list_source_groups(category)
        for category in stage_categories
        if list_partition_keys(category)
    }

    @dg.asset(
        key=key,
        code_version=asset_keys.compute_code_version(
            profile.mixture, profile.holdout_fraction, profile.paper_parity, groups_by_category
        ),
        group_name="mixture",
        deps=[*upstream_keys, DUPLICATES_KEY, CONTAMINATION_KEY],
        description=STAGE_DESCRIPTIONS[stage],
        kinds={"lance", "duckdb"},
        owners=asset_keys.OWNERS,
        check_specs=[
            build_schema_check(key),
            dg.AssetCheckSpec(TARGETS_CHECK, asset=key, description="Every category filled its share."),
        ],
    )
    def _materialize_mixture(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.mixing import build_mixture

        report = build_mixture(
            lake.lake, asset_keys.load_active_profile(), stage, run_id=context.run_id, groups=groups_by_category
        )
        table = lake.lake.get_table(f"mixture/{stage}")
        fills = [
            {
                "category": f.category,
                "taken": f"{f.selected:,}/{LINE_BREAK}{f.target:,}",
                "rewritten": f.rewritten,
                "available": f.available,
            }
            for f in report.fills
        ]
        shortfall = sum(f.shortfall for f in report.fills)
        taken_by_category = {f.category: f.rewritten for f in report.fills}
        rewrites = [
            {
                "category": k.category,
                "taken": f"{taken_by_category.get(k.category, 0):,}/{LINE_BREAK}{k.kept:,}",
                "not to be taken": _format_exclusions(k),
            }
            for k in report.kept_rewrites
        ]
        preview_rows = read_first_mixture_rows(lake.lake, stage)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=build_table_metadata(
                table,
                {
                    metadata_keys.FILL: render_markdown_table(fills),
                    metadata_keys.SHORTFALL: shortfall,
                    metadata_keys.REWRITES_KEPT: sum(k.kept for k in report.kept_rewrites),
                    metadata_keys.REWRITES_OUTDATED: sum(k.outdated for k in report.kept_rewrites),
                    metadata_keys.REWRITES_HELD_OUT: sum(k.held_out for k in report.kept_rewrites),
                    metadata_keys.REWRITES_EXCLUDED: sum(k.excluded for k in report.kept_rewrites),
                    metadata_keys.REWRITES_TAKEN: sum(taken_by_category.values()),
                    metadata_keys.REWRITES: render_markdown_table(rewrites),
                    metadata_keys.PREVIEW: render_preview(
                        lake.lake, preview_rows, ["row_id", "source", "kind", "question", "answer"]
                    ),
                },
                rows=report.published.n_rows,
            ),
            check_results=[
                build_schema_result(key, table),
                dg.AssetCheckResult(
                    asset_key=key,
                    check_name=TARGETS_CHECK,
                    passed=shortfall == 0,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={metadata_keys.SHORTFALL: shortfall},
                ),
            ],
        )

    return _materialize_mixture


def _format_exclusions(kept_rewrites: KeptRewrites) -> str:
    """Return why kept rewrites cannot be taken, in words: columns of their own would not fit a narrow page."""
    counts = {
        "outdated": kept_rewrites.outdated,
        "held out": kept_rewrites.held_out,
        "duplicate or benchmark": kept_rewrites.excluded,
    }
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count) or "none"


@dg.definitions
def defs() -> dg.Definitions:
    """Return the mixtures of all training stages."""
    return dg.Definitions(assets=[build_mixture_asset(stage) for stage in TRAINING_STAGES])
