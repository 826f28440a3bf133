"""`category/<c>`: the newest usable samples of a category's group A and B sources, one partition per source.

Belongs here: the assets. Does not: what a row holds (`lake/schema.py`) or how it is made (`ingest/categorise.py`).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.config.catalog import Category
from mvl_assets.lake_queries.views import first_samples
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import SAMPLE_COLUMNS, preview, sound_check, sound_result, table_metadata
from mvl_assets.orchestration.resources import LakeResource


def category_asset(category: Category) -> dg.AssetsDefinition:
    key = dg.AssetKey(["category", category])
    partitions = asset_keys.source_partitions(category)

    @dg.asset(
        key=key,
        group_name="category",
        partitions_def=partitions,
        deps=[asset_keys.from_raw(slug) for slug in partitions.get_partition_keys()],
        description=f"The usable samples of the {category} sources, with group, prompt family and what standardising "
        "will do to their pictures (paper §2).",
        kinds={"lance"},
        tags=asset_keys.tags(category),
        owners=asset_keys.OWNERS,
        check_specs=[sound_check(key, partitions)],
    )
    def _category(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.ingest.categorise import categorise_source

        source = asset_keys.source_of(context)
        report = categorise_source(lake.lake, source, run_id=context.run_id)
        table = lake.lake.table(f"category/{category}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata=table_metadata(
                table,
                rows=report.rows,
                where=source.slug,
                preview=preview(lake.lake, first_samples(lake.lake, source.slug), SAMPLE_COLUMNS),
                **report.facts,
            ),
            check_results=[sound_result(key, table, source.slug)],
        )

    return _category


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[category_asset(c) for c in asset_keys.categories()])
