"""Which assets and partitions are missing or stale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import dagster as dg

from mvl_assets.orchestration.dagster_internals import AssetGraph, build_stale_status_resolver

STUDY_KEY_PREFIX = "study"
"""First part of the keys of what arms of studies are made of."""

AssetState = Literal["fresh", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """The status of one asset, or of one partition of it; `causes` say why it is stale."""

    key: dg.AssetKey
    partition_key: str | None
    state: AssetState
    causes: list[str]


class AssetStatusResolver:
    """Status of a code location's assets by the instance's event log at the time of construction."""

    def __init__(self, asset_graph: AssetGraph, instance: dg.DagsterInstance) -> None:
        self.asset_graph = asset_graph
        self._instance = instance
        self._resolver = build_stale_status_resolver(asset_graph, instance)

    def get_status(self, key: dg.AssetKey, partition_key: str | None) -> AssetStatus:
        """Return the status of an asset, or of one of its partitions."""
        state = self._resolver.get_status(key, partition_key).value.lower()
        causes = dict.fromkeys(
            f"{c.reason}" + (f" ({c.dependency.asset_key.to_user_string()})" if c.dependency else "")
            for c in self._resolver.get_stale_causes(key, partition_key)
        )
        return AssetStatus(key, partition_key, state, list(causes))  # type: ignore[arg-type]

    def iter_asset_statuses(self, key: dg.AssetKey) -> Iterator[AssetStatus]:
        """Yield the status of the asset, or of each of its partitions.

        Partitions that are registered while the pipeline runs are made on request only: of these, those that were
        never made are left out and not missing.
        """
        partitions_def = self.asset_graph.get(key).partitions_def
        if partitions_def is None:
            yield self.get_status(key, None)
            return
        partition_keys = partitions_def.get_partition_keys(dynamic_partitions_store=self._instance)
        if isinstance(partitions_def, dg.DynamicPartitionsDefinition):
            made_keys = self._instance.get_materialized_partitions(key)
            partition_keys = [partition_key for partition_key in partition_keys if partition_key in made_keys]
        for partition_key in partition_keys:
            yield self.get_status(key, partition_key)

    def iter_statuses(self) -> Iterator[AssetStatus]:
        """Yield the status of every materialisable asset, partition by partition.

        Studies are left out: their arms answer to the inputs that they were started with.
        """
        for key in sorted(self.asset_graph.materializable_asset_keys):
            if key.path[0] == STUDY_KEY_PREFIX:
                continue
            yield from self.iter_asset_statuses(key)
