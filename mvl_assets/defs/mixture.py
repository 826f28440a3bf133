"""`mixture/<stage>`: the manifests training reads, unpartitioned, in their final order.

Belongs here: the three assets. Does not: how many of what (`curation/mixing.py`) and the numbers (the profile).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.defs.curation import CONTAMINATION, DUPLICATES
from mvl_assets.lake.schema import STAGES
from mvl_assets.lake_queries.views import mixture_rows
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import markdown_table, preview, sound_check, sound_result, table_metadata
from mvl_assets.orchestration.resources import LakeResource

WORDS = {
    "alignment": "Picture-caption pairs for the projector alone (paper, Table 1, stage 1).",
    "single_image": "Single pictures and text, by category shares and 70% rewritten where a category has rewrites "
    "(paper, Table 1, stage 2; Figure 3; §2.3).",
    "one_vision": "Single pictures that stage 2 did not take, several pictures, and video (paper, Table 1, stage 3).",
}


def mixture_asset(stage: str) -> dg.AssetsDefinition:
    key = dg.AssetKey(["mixture", stage])
    upstream = (
        [dg.AssetKey(["category", "alignment"])]
        if stage == "alignment"
        else [
            *(dg.AssetKey(["category", c]) for c in asset_keys.categories() if c not in ("alignment", "released")),
            *(dg.AssetKey(["judged", c]) for c in asset_keys.rewritten_categories()),
        ]
    )

    profile = asset_keys.profile()
    # A source that the catalog moves to another group or category leaves the rows it had in the tables.
    groups = {asset.path[1]: asset_keys.groups(asset.path[1]) for asset in upstream if asset.path[0] == "category"}

    @dg.asset(
        key=key,
        code_version=asset_keys.settings_version(profile.mixture, profile.holdout, profile.paper_parity, groups),
        group_name="mixture",
        deps=[*upstream, DUPLICATES, CONTAMINATION],
        description=WORDS[stage],
        kinds={"lance", "duckdb"},
        owners=asset_keys.OWNERS,
        check_specs=[
            sound_check(key),
            dg.AssetCheckSpec("targets_met", asset=key, description="Every category filled its share."),
        ],
    )
    def _mixture(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.mixing import mix

        report = mix(lake.lake, asset_keys.profile(), stage, run_id=context.run_id, groups=groups)
        table = lake.lake.table(f"mixture/{stage}")
        fills = [
            {
                "category": f.category,
                "target": f.target,
                "available": f.available,
                "taken": f.taken,
                "rewritten": f.rewritten,
                "shortfall": f.shortfall,
            }
            for f in report.fills
        ]
        short = sum(f.shortfall for f in report.fills)
        shown = mixture_rows(lake.lake, stage, 0, 6)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=table_metadata(
                table,
                rows=report.published.rows,
                fill=markdown_table(fills),
                shortfall=short,
                preview=preview(lake.lake, shown, ["category", "source", "kind", "question", "answer"]),
            ),
            check_results=[
                sound_result(key, table),
                dg.AssetCheckResult(
                    asset_key=key,
                    check_name="targets_met",
                    passed=short == 0,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"shortfall": short},
                ),
            ],
        )

    return _mixture


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[mixture_asset(stage) for stage in STAGES])
