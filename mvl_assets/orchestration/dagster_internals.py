"""The one module that uses private API of Dagster; `tests/orchestration/test_dagster_internals.py` pins the version."""

from __future__ import annotations

import time
from collections.abc import Collection

import dagster as dg
from dagster._core.definitions.asset_selection import DagsterInvalidAssetSelectionError
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.data_version import CachingStaleStatusResolver, DataProvenance
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log.base import AssetRecord
from dagster._core.utils import make_new_backfill_id

__all__ = [
    "AssetGraph",
    "StaleStatusResolver",
    "build_stale_status_resolver",
    "list_child_partitions",
    "resolve_asset_selection",
    "submit_backfill",
]

AssetPartition = tuple[dg.AssetKey, str | None]


class StaleStatusResolver(CachingStaleStatusResolver):
    """Dagster's own resolver with one correction and one shortcut.

    What was made before its upstream asset had ever been materialised has recorded no event of it; Dagster then
    compares the newest event with itself and finds no difference, for ever.

    Dagster asks the event log twice about each upstream partition. A mixture has hundreds of them, all of one asset,
    whose latest record mostly says that nothing happened since.
    """

    def _is_dep_updated(self, provenance: DataProvenance, dep_key: AssetKeyPartitionKey) -> bool:
        if dep_key.partition_key is not None and not self.asset_graph.get(dep_key.asset_key).is_external:
            record = self.instance_queryer.get_asset_record(dep_key.asset_key)
            latest_storage_id = record.asset_entry.last_materialization_storage_id if record else None
            seen_storage_id = provenance.input_storage_ids[dep_key.asset_key]
            if (latest_storage_id or 0) <= (seen_storage_id or 0):
                return False
            if seen_storage_id is None:
                return self._get_latest_data_version_record(key=dep_key) is not None
        return super()._is_dep_updated(provenance, dep_key)


def build_stale_status_resolver(asset_graph: AssetGraph, instance: dg.DagsterInstance) -> StaleStatusResolver:
    """Return a resolver over the instance's event log as it is now, with the records of all assets loaded."""
    context = LoadingContextForTest(instance)
    # One query for all: the resolver would ask for one asset at a time.
    AssetRecord.blocking_get_many(context, sorted(asset_graph.get_all_asset_keys()))
    return StaleStatusResolver(instance, asset_graph, context)


def resolve_asset_selection(expression: str, asset_graphs: Collection[AssetGraph]) -> frozenset[dg.AssetKey]:
    """Return the keys that a selection in Dagster's syntax names, over several graphs.

    Raises:
        ValueError: The expression cannot be read.
    """
    try:
        selection = dg.AssetSelection.from_string(expression)
    except DagsterInvalidAssetSelectionError as error:
        raise ValueError(str(error)) from error
    return frozenset(key for graph in asset_graphs for key in selection.resolve(graph, allow_missing=True))


def list_child_partitions(
    asset_graph: AssetGraph, instance: dg.DagsterInstance, parent: AssetPartition
) -> list[AssetPartition]:
    """Return what is made directly from an asset, or from one of its partitions, within the graph."""
    key, partition_key = parent
    children: list[AssetPartition] = []
    for child_key in sorted(asset_graph.get(key).child_keys & asset_graph.materializable_asset_keys):
        partitions_def = asset_graph.get(child_key).partitions_def
        if partitions_def is None:
            children.append((child_key, None))
        elif partition_key is None:
            names = partitions_def.get_partition_keys(dynamic_partitions_store=instance)
            children += [(child_key, name) for name in names]
        else:
            fed_names = asset_graph.get_child_partition_keys_of_parent(partition_key, key, child_key)
            children += [(child_key, name) for name in sorted(fed_names)]
    return children


def submit_backfill(
    instance: dg.DagsterInstance, asset_graph: AssetGraph, partitions: Collection[AssetPartition], title: str
) -> str:
    """Give the daemon a backfill of exactly these partitions, which it launches in the order of the graph.

    Returns:
        The id of the backfill.
    """
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=make_new_backfill_id(),
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset.from_asset_partition_set(
            {AssetKeyPartitionKey(key, partition_key) for key, partition_key in partitions}, asset_graph
        ),
        title=title,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id
