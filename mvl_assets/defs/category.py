"""Assets `category/<c>`: the newest usable samples of a category's group A and B sources, one partition per source.

`ingest/categorise.py` builds the rows.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.catalog import Category
from mvl_assets.lake_queries.views import read_first_samples
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    SAMPLE_COLUMNS,
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_preview,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.orchestration.upstream import require_upstream
from mvl_assets.stages import RAW


def build_category_asset(category: Category) -> dg.AssetsDefinition:
    """Return the asset `category/<category>`."""
    key = dg.AssetKey(["category", category])
    partitions = asset_keys.build_source_partitions(category)

    @dg.asset(
        key=key,
        group_name="category",
        partitions_def=partitions,
        deps=[asset_keys.build_raw_dep(slug) for slug in partitions.get_partition_keys()],
        description=f"The usable samples of the {category} sources, with group, prompt family and what standardising "
        "will do to their images (paper §2).",
        kinds={"lance"},
        tags=asset_keys.build_category_tags(category),
        owners=asset_keys.OWNERS,
        check_specs=[build_schema_check(key, partitions)],
    )
    def _materialize_category(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.ingest.categorise import categorise_source

        source = asset_keys.get_partition_source(context)
        require_upstream(context, lake.lake, RAW, source.slug)
        report = categorise_source(lake.lake, source, run_id=context.run_id)
        table = lake.lake.get_table(f"category/{category}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata=build_table_metadata(
                table,
                {
                    metadata_keys.PREVIEW: render_preview(
                        lake.lake, read_first_samples(lake.lake, source.slug), SAMPLE_COLUMNS
                    ),
                    **{metadata_keys.PREFIX + name: value for name, value in report.metadata.items()},
                },
                rows=report.n_rows,
                partition_key=source.slug,
            ),
            check_results=[build_schema_result(key, table, source.slug)],
        )

    return _materialize_category


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all categories."""
    return dg.Definitions(assets=[build_category_asset(c) for c in asset_keys.list_categories()])
