"""Which assets and partitions are missing or out of date. The one place that touches Dagster's private resolver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import CachingStaleStatusResolver, DataProvenance
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log.base import AssetRecord

AssetState = Literal["fresh", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """One asset, or one partition of it. `causes` say why it is stale."""

    key: dg.AssetKey
    partition_key: str | None
    state: AssetState
    causes: list[str]


class _FastStaleStatusResolver(CachingStaleStatusResolver):
    """Dagster's own, but for one shortcut: it asks the event log twice about each partition upstream, and a mixture has
    hundreds of them, of which one asset's latest record mostly says that nothing happened since."""

    def _is_dep_updated(self, provenance: DataProvenance, dep_key: AssetKeyPartitionKey) -> bool:
        if dep_key.partition_key is not None and not self.asset_graph.get(dep_key.asset_key).is_external:
            record = self.instance_queryer.get_asset_record(dep_key.asset_key)
            latest_storage_id = record.asset_entry.last_materialization_storage_id if record else None
            if (latest_storage_id or 0) <= (provenance.input_storage_ids[dep_key.asset_key] or 0):
                return False
        return super()._is_dep_updated(provenance, dep_key)


class AssetStatusResolver:
    """Looks at the instance's event log through one code location's graph, as it is when this is made."""

    def __init__(self, asset_graph: AssetGraph, instance: dg.DagsterInstance) -> None:
        self.asset_graph = asset_graph
        context = LoadingContextForTest(instance)
        # All in one query: the resolver would ask for one asset at a time.
        AssetRecord.blocking_get_many(context, sorted(asset_graph.get_all_asset_keys()))
        self._resolver = _FastStaleStatusResolver(instance, asset_graph, context)

    def get_status(self, key: dg.AssetKey, partition_key: str | None) -> AssetStatus:
        state = self._resolver.get_status(key, partition_key).value.lower()
        causes = dict.fromkeys(
            f"{c.reason}" + (f" ({c.dependency.asset_key.to_user_string()})" if c.dependency else "")
            for c in self._resolver.get_stale_causes(key, partition_key)
        )
        return AssetStatus(key, partition_key, state, list(causes))  # type: ignore[arg-type]

    def iter_asset_statuses(self, key: dg.AssetKey) -> Iterator[AssetStatus]:
        """The asset, or each of its partitions."""
        partitions_def = self.asset_graph.get(key).partitions_def
        for partition_key in [None] if partitions_def is None else partitions_def.get_partition_keys():
            yield self.get_status(key, partition_key)

    def iter_statuses(self) -> Iterator[AssetStatus]:
        """Every materialisable asset, partition by partition."""
        for key in sorted(self.asset_graph.materializable_asset_keys):
            yield from self.iter_asset_statuses(key)
