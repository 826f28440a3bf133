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

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import CATEGORIES, Category, SourceSpec, load_catalog, partition_sources, source_named
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.settings import settings

OWNERS = ["team:data"]


@cache
def categories() -> tuple[Category, ...]:
    """Categories that have a table: those with at least one source of group A or B."""
    return tuple(c for c in CATEGORIES if partition_sources(c))


def groups(category: str) -> dict[str, str]:
    """The sources of a category that the profile takes, with their groups, A or B."""
    found = {slug: spec.group for slug, spec in load_catalog().items() if spec.category == category}
    return {slug: group for slug, group in found.items() if group in ("A", "B") and _is_chosen(slug)}


def chosen_sources() -> list[str]:
    """The sources the profile takes, in catalog order. Raises `MvlError` for a name that no source has."""
    chosen = profile().sources
    for slug in () if chosen == "all" else chosen:
        source_named(slug)
    return [slug for slug in load_catalog() if _is_chosen(slug)]


def _is_chosen(slug: str) -> bool:
    chosen = profile().sources
    return chosen == "all" or slug in chosen


def benchmarks() -> list[tuple[str, list[str]]]:
    """The sources that are benchmarks themselves, with the names of these."""
    found = {s: [b.name for b in c.benchmarks if b.relation == "is_benchmark"] for s, c in load_catalog().items()}
    return [(slug, names) for slug, names in found.items() if names]


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


def prompt_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["prompts", name])


def from_prompt(name: str, sources: Iterable[str]) -> dg.AssetDep:
    """The edge from one prompt to the partitions of the sources it is used for."""
    return dg.AssetDep(prompt_key(name), partition_mapping=dg.StaticPartitionMapping({name: set(sources)}))


def families(category: Category) -> dict[str, list[str]]:
    """The prompt families of a category's group B sources, each with these sources."""
    found: dict[str, list[str]] = {}
    for slug in rewritten_sources(category):
        if family := load_catalog()[slug].family:
            found.setdefault(family, []).append(slug)
    return found


def source_of(context: dg.AssetExecutionContext) -> SourceSpec:
    return load_catalog()[context.partition_key]


def settings_version(*parts: object) -> str:
    """A Dagster code version made of the settings an asset depends on, so that changing a model, a limit or the keep
    rule in the profile shows as out of date exactly where it matters. Edits of the code itself do not."""
    plain = [p.model_dump(mode="json") if isinstance(p, BaseModel) else p for p in parts]
    return digest_hex(*plain)[:12]


@cache
def profile() -> Profile:
    """The profile this code location was loaded with."""
    return load_profile(settings().profile)


def tags(category: str | None = None) -> dict[str, str]:
    return {} if category is None else {"mvl/category": category}
