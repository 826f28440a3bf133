"""What a partition needs before it is made: the same source's partition of the stage before it.

Without it a stage would publish no rows and look complete. Dagster does not refuse: it lets any partition be made
alone.
"""

from __future__ import annotations

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.errors import SourceError
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import Stage


def require_upstream(context: dg.AssetExecutionContext, lake: Lake, upstream: Stage, asset_name: str) -> None:
    """Require that the upstream partition of this run's source was made.

    Either the lake has rows of it, or Dagster knows that it was made without any: all its samples may be purged, or
    withdrawn from the source's files.

    Args:
        context: Names the partition that is to be made.
        lake: The lake.
        upstream: The stage before.
        asset_name: Second part of the key of the upstream asset.

    Raises:
        SourceError: The upstream partition was never made, or in another lake.
    """
    slug = context.partition_key
    if lake.get_table(upstream.get_table_name(asset_name)).count(partition_key=slug):
        return
    key = dg.AssetKey([upstream.name, asset_name])
    records = context.instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[slug]), limit=1)
    materialization = records.records[0].asset_materialization if records.records else None
    upstream_name = f"{key.to_user_string()}[{slug}]"
    if materialization is None:
        problem = f"{upstream_name} has not been materialised, so there is nothing to read"
    else:
        row_count = materialization.metadata.get(metadata_keys.PARTITION_ROW_COUNT)
        if row_count is None or not row_count.value:
            return
        problem = f"{lake.root} has none of the {row_count.value} rows of {upstream_name}"
    raise SourceError(
        slug,
        problem,
        hint=f"materialise {upstream_name} first; `mvl run --source {slug} --until {context.asset_key.path[0]}` makes"
        " everything up to here",
    )
