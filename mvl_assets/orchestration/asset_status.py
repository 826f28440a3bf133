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

State = Literal["fresh", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One asset, or one partition of it. `causes` say why it is stale."""

    key: dg.AssetKey
    partition: str | None
    state: State
    causes: list[str]


class _Resolver(CachingStaleStatusResolver):
    """Dagster's own, but for one shortcut: it asks the event log twice about each partition upstream, and a mixture has
    hundreds of them, of which one asset's latest record mostly says that nothing happened since."""

    def _is_dep_updated(self, provenance: DataProvenance, dep_key: AssetKeyPartitionKey) -> bool:
        if dep_key.partition_key is not None and not self.asset_graph.get(dep_key.asset_key).is_external:
            record = self.instance_queryer.get_asset_record(dep_key.asset_key)
            newest = record.asset_entry.last_materialization_storage_id if record else None
            if (newest or 0) <= (provenance.input_storage_ids[dep_key.asset_key] or 0):
                return False
        return super()._is_dep_updated(provenance, dep_key)


class Standings:
    """Looks at the instance's event log through one code location's graph, as it is when this is made."""

    def __init__(self, graph: AssetGraph, instance: dg.DagsterInstance) -> None:
        self.graph = graph
        context = LoadingContextForTest(instance)
        # All in one query: the resolver would ask for one asset at a time.
        AssetRecord.blocking_get_many(context, sorted(graph.get_all_asset_keys()))
        self._resolver = _Resolver(instance, graph, context)

    def of(self, key: dg.AssetKey, partition: str | None) -> Standing:
        status = self._resolver.get_status(key, partition).value.lower()
        causes = dict.fromkeys(
            f"{c.reason}" + (f" ({c.dependency.asset_key.to_user_string()})" if c.dependency else "")
            for c in self._resolver.get_stale_causes(key, partition)
        )
        return Standing(key, partition, status, list(causes))  # type: ignore[arg-type]

    def of_asset(self, key: dg.AssetKey) -> Iterator[Standing]:
        """The asset, or each of its partitions."""
        partitions = self.graph.get(key).partitions_def
        for name in [None] if partitions is None else partitions.get_partition_keys():
            yield self.of(key, name)

    def all(self) -> Iterator[Standing]:
        """Every materialisable asset, partition by partition."""
        for key in sorted(self.graph.materializable_asset_keys):
            yield from self.of_asset(key)
