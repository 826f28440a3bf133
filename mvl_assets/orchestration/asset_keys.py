"""Keys, partitions and edges of the asset graph, and what assets share: code versions, tags, the profile.

One partition is one source. The graph has the profile's sources that there is something of: files, an address to fetch
them from where the profile says so, or rows in the lake. The others are declared, and shown, but cannot be
materialised. `raw/<slug>` has a single partition of that name, so that a change of one source reaches only that
partition of its category (a plain edge from an unpartitioned asset would reach all partitions).
`prompts/<name>` has one too, so that an edit reaches only the sources of its family.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import dagster as dg
from pydantic import BaseModel

from mvl_assets.common import metadata_keys
from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.benchmarks import load_benchmarks
from mvl_assets.config.catalog import (
    Category,
    SourceSpec,
    get_source,
    list_all_categories,
    list_partition_keys,
    load_catalog,
)
from mvl_assets.config.mixture_sources import require_reachable_shares
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.curation.mixing import resolve_filter
from mvl_assets.curation.strata import resolve_strata
from mvl_assets.fetch.overview import is_fetchable
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import BENCHMARKS, RAW

OWNERS = ["team:data"]


@cache
def list_graph_sources() -> tuple[str, ...]:
    """Return the profile's sources that have files, can be fetched, or have rows in the lake, in catalog order.

    Files that appear later are seen by the next process, and by "Reload definitions" in the web interface.
    """
    slugs, graph_slugs = list_profile_sources(), set(list_available_sources())
    if len(graph_slugs) < len(slugs):  # otherwise loading the graph asks nothing of the lake
        graph_slugs.update(Lake(load_settings().lake_root).get_table("samples").list_partitions())
    return tuple(slug for slug in slugs if slug in graph_slugs)


def list_available_sources() -> list[str]:
    """Return the profile's sources that have files or, where it says so, can be fetched, in catalog order."""
    catalog, is_fetching = load_catalog(), load_active_profile().fetch
    return [s for s in list_profile_sources() if catalog[s].root.is_dir() or (is_fetching and is_fetchable(catalog[s]))]


@cache
def list_partition_sources(category: Category) -> tuple[str, ...]:
    """Return the sources of groups A and B that `category/<category>` has partitions of."""
    graph_sources = set(list_graph_sources())
    return tuple(slug for slug in list_partition_keys(category) if slug in graph_sources)


@cache
def list_categories() -> tuple[Category, ...]:
    """Return the categories that have a table: those with at least one source of group A or B in the graph."""
    return tuple(c for c in list_all_categories() if list_partition_sources(c))


def list_category_groups(categories: Iterable[str], profile: Profile) -> dict[str, dict[str, str]]:
    """Return the sources of each category that a profile includes, with their group, A or B.

    Categories are left out that have no source of these groups.
    """
    groups: dict[str, dict[str, str]] = {category: {} for category in categories if list_partition_keys(category)}
    for slug, spec in load_catalog().items():
        if spec.category in groups and spec.group in ("A", "B") and _is_in_profile(slug, profile):
            groups[spec.category][slug] = spec.group
    return groups


@cache
def list_graph_benchmarks() -> tuple[str, ...]:
    """Return the benchmarks of the profile whose items have files, can be fetched, or are in the lake, by slug.

    Raises:
        MvlError: The profile names an unknown benchmark.
    """
    profile, declared = load_active_profile(), load_benchmarks()
    names = profile.contamination.benchmarks
    slugs = list(declared) if names == "all" else [get_source(f"{BENCHMARK_PREFIX}{name}").slug for name in names]
    graph_slugs = {s for s in slugs if declared[s].root.is_dir() or (profile.fetch and is_fetchable(declared[s]))}
    if len(graph_slugs) < len(slugs):
        graph_slugs.update(Lake(load_settings().lake_root).get_table("samples").list_partitions())
    return tuple(slug for slug in slugs if slug in graph_slugs)


def build_benchmark_key(slug: str) -> dg.AssetKey:
    """Return the asset key of a benchmark's items."""
    return dg.AssetKey([BENCHMARKS.name, slug.removeprefix(BENCHMARK_PREFIX)])


def list_profile_sources() -> list[str]:
    """Return the sources that the profile includes, in catalog order.

    Raises:
        MvlError: The profile names an unknown source.
    """
    profile_sources = load_active_profile().sources
    for slug in () if profile_sources == "all" else profile_sources:
        get_source(slug)
    return [slug for slug in load_catalog() if _is_in_profile(slug, load_active_profile())]


def _is_in_profile(slug: str, profile: Profile) -> bool:
    return profile.sources == "all" or slug in profile.sources


def list_benchmark_sources() -> list[tuple[str, list[str]]]:
    """Return the sources that are benchmarks themselves, with the names of the benchmarks."""
    benchmarks_by_slug = {
        s: [b.name for b in c.benchmarks if b.relation == "is_benchmark"] for s, c in load_catalog().items()
    }
    return [(slug, names) for slug, names in benchmarks_by_slug.items() if names]


@cache
def list_rewritten_sources(category: Category) -> tuple[str, ...]:
    """Return the slugs of a category's group B sources in the graph, in catalog order."""
    return tuple(s for s in list_partition_sources(category) if load_catalog()[s].group == "B")


@cache
def list_rewritten_categories() -> tuple[Category, ...]:
    """Return the categories with at least one source to be rewritten."""
    return tuple(c for c in list_categories() if list_rewritten_sources(c))


def build_source_partitions(category: Category) -> dg.StaticPartitionsDefinition:
    """Return the partitions of `category/<category>`."""
    return dg.StaticPartitionsDefinition(list(list_partition_sources(category)))


def build_rewritten_partitions(category: Category) -> dg.StaticPartitionsDefinition:
    """Return the partitions of `rewritten/<category>` and `judged/<category>`: its group B sources."""
    return dg.StaticPartitionsDefinition(list(list_rewritten_sources(category)))


def build_raw_dep(slug: str) -> dg.AssetDep:
    """Return the edge from one source to its own partition of a category."""
    return dg.AssetDep(dg.AssetKey([RAW.name, slug]), partition_mapping=dg.StaticPartitionMapping({slug: slug}))


def build_prompt_key(name: str) -> dg.AssetKey:
    """Return the asset key of a prompt."""
    return dg.AssetKey(["prompts", name])


def build_prompt_dep(name: str, sources: Iterable[str]) -> dg.AssetDep:
    """Return the edge from one prompt to the partitions of the sources it is used for."""
    return dg.AssetDep(build_prompt_key(name), partition_mapping=dg.StaticPartitionMapping({name: set(sources)}))


def group_sources_by_family(category: Category) -> dict[str, list[str]]:
    """Return the prompt families of a category's group B sources, each with its sources."""
    sources_by_family: dict[str, list[str]] = {}
    for slug in list_rewritten_sources(category):
        if family := load_catalog()[slug].family:
            sources_by_family.setdefault(family, []).append(slug)
    return sources_by_family


def get_partition_source(context: dg.AssetExecutionContext) -> SourceSpec:
    """Return the source that is the partition of this run."""
    return load_catalog()[context.partition_key]


def compute_code_version(*values: object) -> str:
    """Return a Dagster code version made of the settings an asset depends on.

    A changed model, limit or keep rule then makes exactly the affected assets stale; edits of the code do not.
    """
    json_values = [p.model_dump(mode="json") if isinstance(p, BaseModel) else p for p in values]
    return compute_digest(*json_values)[:12]


@cache
def load_active_profile() -> Profile:
    """Return the profile this code location was loaded with.

    Raises:
        MvlError: There is no such profile, it has a mistake, or its mixtures cannot be reached with the catalog.
    """
    return load_checked_profile(load_settings().profile)


def load_checked_profile(name: str) -> Profile:
    """Return a profile by name or path. Raises as `load_active_profile` does."""
    profile = load_profile(name)
    require_reachable_shares(profile)
    if profile.mixture.strata is not None:
        resolve_strata(profile.mixture.strata)
    resolve_filter(profile)
    return profile


def build_category_tags(category: str | None = None) -> dict[str, str]:
    """Return the tags of an asset of a category; none without a category."""
    return {} if category is None else {metadata_keys.CATEGORY: category}
