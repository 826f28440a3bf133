"""Names and partitions of the graph: which assets there are, before any of them is defined.

One partition is one source. `raw/<slug>` has a single partition of that name, so that a change of one source reaches
that partition of its category and no other (a plain edge from an unpartitioned asset would reach all of them).
`prompts/<name>` has one too: an edit reaches the sources of its family, and not the others of their category.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import dagster as dg
from pydantic import BaseModel

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import CATEGORIES, Category, SourceSpec, get_source, list_partition_keys, load_catalog
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.settings import load_settings

OWNERS = ["team:data"]


@cache
def list_categories() -> tuple[Category, ...]:
    """Categories that have a table: those with at least one source of group A or B."""
    return tuple(c for c in CATEGORIES if list_partition_keys(c))


def list_source_groups(category: str) -> dict[str, str]:
    """The sources of a category that the profile takes, with their groups, A or B."""
    group_by_slug = {slug: spec.group for slug, spec in load_catalog().items() if spec.category == category}
    return {slug: group for slug, group in group_by_slug.items() if group in ("A", "B") and _is_in_profile(slug)}


def list_profile_sources() -> list[str]:
    """The sources the profile takes, in catalog order. Raises `MvlError` for a name that no source has."""
    profile_sources = load_active_profile().sources
    for slug in () if profile_sources == "all" else profile_sources:
        get_source(slug)
    return [slug for slug in load_catalog() if _is_in_profile(slug)]


def _is_in_profile(slug: str) -> bool:
    profile_sources = load_active_profile().sources
    return profile_sources == "all" or slug in profile_sources


def list_benchmark_sources() -> list[tuple[str, list[str]]]:
    """The sources that are benchmarks themselves, with the names of these."""
    benchmarks_by_slug = {
        s: [b.name for b in c.benchmarks if b.relation == "is_benchmark"] for s, c in load_catalog().items()
    }
    return [(slug, names) for slug, names in benchmarks_by_slug.items() if names]


@cache
def list_rewritten_sources(category: Category) -> tuple[str, ...]:
    """The slugs of a category's group B sources, in catalog order."""
    return tuple(s for s in list_partition_keys(category) if load_catalog()[s].group == "B")


@cache
def list_rewritten_categories() -> tuple[Category, ...]:
    return tuple(c for c in list_categories() if list_rewritten_sources(c))


@cache
def build_source_partitions(category: Category) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(list(list_partition_keys(category)))


@cache
def build_rewritten_partitions(category: Category) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(list(list_rewritten_sources(category)))


def build_raw_dep(slug: str) -> dg.AssetDep:
    """The edge from one source to its own partition of a category."""
    return dg.AssetDep(dg.AssetKey(["raw", slug]), partition_mapping=dg.StaticPartitionMapping({slug: slug}))


def build_prompt_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["prompts", name])


def build_prompt_dep(name: str, sources: Iterable[str]) -> dg.AssetDep:
    """The edge from one prompt to the partitions of the sources it is used for."""
    return dg.AssetDep(build_prompt_key(name), partition_mapping=dg.StaticPartitionMapping({name: set(sources)}))


def group_sources_by_family(category: Category) -> dict[str, list[str]]:
    """The prompt families of a category's group B sources, each with these sources."""
    sources_by_family: dict[str, list[str]] = {}
    for slug in list_rewritten_sources(category):
        if family := load_catalog()[slug].family:
            sources_by_family.setdefault(family, []).append(slug)
    return sources_by_family


def get_partition_source(context: dg.AssetExecutionContext) -> SourceSpec:
    return load_catalog()[context.partition_key]


def compute_code_version(*values: object) -> str:
    """A Dagster code version made of the settings an asset depends on, so that changing a model, a limit or the keep
    rule in the profile shows as out of date exactly where it matters. Edits of the code itself do not."""
    json_values = [p.model_dump(mode="json") if isinstance(p, BaseModel) else p for p in values]
    return compute_digest(*json_values)[:12]


@cache
def load_active_profile() -> Profile:
    """The profile this code location was loaded with."""
    return load_profile(load_settings().profile)


def build_category_tags(category: str | None = None) -> dict[str, str]:
    return {} if category is None else {"mvl/category": category}
