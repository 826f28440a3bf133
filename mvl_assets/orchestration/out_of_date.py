"""What is out of date: stale partitions, and what has been made from them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

import dagster as dg

from mvl_assets.orchestration.asset_status import AssetStatusResolver
from mvl_assets.orchestration.dagster_internals import AssetGraph, AssetPartition, list_child_partitions


def list_out_of_date(
    asset_graph: AssetGraph, instance: dg.DagsterInstance, stages: Collection[str]
) -> list[AssetPartition]:
    """Return the stale partitions of these stages and everything made from them, in no particular order.

    What was never made is left out: that is for a person to start.
    """
    statuses = [
        status
        for status in AssetStatusResolver(asset_graph, instance).iter_statuses()
        if status.key.path[0] in stages and status.state != "missing"
    ]
    made_partitions = {(status.key, status.partition_key) for status in statuses}
    stale_partitions = [(status.key, status.partition_key) for status in statuses if status.state == "stale"]
    return sorted(_add_descendants(asset_graph, instance, stale_partitions) & made_partitions, key=_get_sort_key)


def _add_descendants(
    asset_graph: AssetGraph, instance: dg.DagsterInstance, partitions: Iterable[AssetPartition]
) -> set[AssetPartition]:
    visited: set[AssetPartition] = set(partitions)
    queue = deque(visited)
    while queue:
        for child in list_child_partitions(asset_graph, instance, queue.popleft()):
            if child not in visited:
                visited.add(child)
                queue.append(child)
    return visited


def _get_sort_key(partition: AssetPartition) -> tuple[str, str]:
    key, partition_key = partition
    return key.to_user_string(), partition_key or ""
