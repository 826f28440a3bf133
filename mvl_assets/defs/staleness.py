"""Which assets and partitions are missing or out of date. The one place that touches Dagster's private resolver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

State = Literal["fresh", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One asset, or one partition of it. `causes` say why it is stale."""

    key: dg.AssetKey
    partition: str | None
    state: State
    causes: list[str]


class Standings:
    """Looks at the instance's event log through one code location's graph, as it is when this is made."""

    def __init__(self, graph: AssetGraph, instance: dg.DagsterInstance) -> None:
        self.graph = graph
        self._resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))

    def of(self, key: dg.AssetKey, partition: str | None) -> Standing:
        status = self._resolver.get_status(key, partition).value.lower()
        causes = [
            f"{c.reason}" + (f" ({c.dependency.asset_key.to_user_string()})" if c.dependency else "")
            for c in self._resolver.get_stale_causes(key, partition)
        ]
        return Standing(key, partition, status, causes)  # type: ignore[arg-type]

    def of_asset(self, key: dg.AssetKey) -> Iterator[Standing]:
        """The asset, or each of its partitions."""
        partitions = self.graph.get(key).partitions_def
        for name in [None] if partitions is None else partitions.get_partition_keys():
            yield self.of(key, name)

    def all(self) -> Iterator[Standing]:
        """Every materialisable asset, partition by partition."""
        for key in sorted(self.graph.materializable_asset_keys):
            yield from self.of_asset(key)
