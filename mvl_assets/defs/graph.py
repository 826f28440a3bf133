"""Names and partitions of the graph: which assets there are, before any of them is defined.

One partition is one source. `raw/<slug>` has a single partition of that name, so that a change of one source reaches
that partition of its category and no other (a plain edge from an unpartitioned asset would reach all of them).
"""

from __future__ import annotations

from functools import cache

import dagster as dg

from mvl_assets.catalog import CATEGORIES, Category, SourceSpec, load_catalog, partition_sources

OWNERS = ["team:data"]


@cache
def categories() -> tuple[Category, ...]:
    """Categories that have a table: those with at least one source of group A or B."""
    return tuple(c for c in CATEGORIES if partition_sources(c))


@cache
def rewritten_sources(category: Category) -> tuple[str, ...]:
    """The slugs of a category's group B sources, in catalog order."""
    return tuple(s for s in partition_sources(category) if load_catalog()[s].group == "B")


@cache
def rewritten_categories() -> tuple[Category, ...]:
    return tuple(c for c in categories() if rewritten_sources(c))


@cache
def source_partitions(category: Category) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(list(partition_sources(category)))


@cache
def rewritten_partitions(category: Category) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(list(rewritten_sources(category)))


def from_raw(slug: str) -> dg.AssetDep:
    """The edge from one source to its own partition of a category."""
    return dg.AssetDep(dg.AssetKey(["raw", slug]), partition_mapping=dg.StaticPartitionMapping({slug: slug}))


def source_of(context: dg.AssetExecutionContext) -> SourceSpec:
    return load_catalog()[context.partition_key]


def tags(category: str | None = None) -> dict[str, str]:
    return {} if category is None else {"mvl/category": category}
