"""`curation/duplicates` and `curation/contamination`: which samples no mixture should take, over all sources.

Both look at the category tables' sources as they are now; neither removes a row anywhere.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.config.catalog import load_catalog, partition_sources
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    first_rows,
    markdown_table,
    preview,
    sound_check,
    sound_result,
    table_metadata,
)
from mvl_assets.orchestration.resources import LakeResource

DUPLICATES = dg.AssetKey(["curation", "duplicates"])
CONTAMINATION = dg.AssetKey(["curation", "contamination"])
UPSTREAM = [dg.AssetKey(["category", c]) for c in asset_keys.categories()]


@dg.asset(
    key=DUPLICATES,
    group_name="curation",
    deps=UPSTREAM,
    description="Samples with the same pictures and the same words as another, within and across sources, and which "
    "one stays. The paper did not remove them.",
    kinds={"lance", "duckdb"},
    owners=asset_keys.OWNERS,
    check_specs=[sound_check(DUPLICATES)],
)
def duplicates(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    from mvl_assets.curation.duplicates import find_duplicates

    sources = list(load_catalog().values())
    report = find_duplicates(lake.lake, sources, run_id=context.run_id)
    table = lake.lake.table("curation/duplicates")
    shown = first_rows(table, ["source", "sample_id", "kept_source", "kept_sample_id"], None)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.published.data_version),
        metadata=table_metadata(
            table,
            rows=report.duplicates,
            compared=report.compared,
            preview=preview(lake.lake, shown, ["source", "sample_id", "kept_source", "kept_sample_id"]),
        ),
        check_results=[sound_result(DUPLICATES, table)],
    )


@dg.asset(
    key=CONTAMINATION,
    code_version=asset_keys.settings_version(asset_keys.profile().holdout, asset_keys.benchmarks()),
    group_name="curation",
    deps=UPSTREAM,
    description="Samples that evaluation would ask again: of sources that are benchmarks themselves, and copies of "
    "held-out questions. The paper does not check.",
    kinds={"lance"},
    owners=asset_keys.OWNERS,
    check_specs=[sound_check(CONTAMINATION)],
)
def contamination(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    from mvl_assets.curation.contamination import find_contamination

    sources = [load_catalog()[slug] for c in asset_keys.categories() for slug in partition_sources(c)]
    holdout = asset_keys.profile().holdout
    report = find_contamination(lake.lake, sources, holdout=holdout, run_id=context.run_id)
    table = lake.lake.table("curation/contamination")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.published.data_version),
        metadata=table_metadata(
            table,
            rows=report.published.rows,
            hits=markdown_table([{"kind": k, "rows": n} for k, n in report.hits.items()]),
        ),
        check_results=[sound_result(CONTAMINATION, table)],
    )


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[duplicates, contamination])
