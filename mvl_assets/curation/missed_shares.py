"""Where a mixture does not have the shares that its profile wants, in words with both numbers."""

from __future__ import annotations

from collections.abc import Sequence

from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.curation.quotas import CategoryFill, SourceFill


def list_missed_rows(
    mixture: MixtureConfig, fills: Sequence[CategoryFill], source_fills: Sequence[SourceFill]
) -> list[str]:
    """Return the categories that are short of rows, and the sources that miss a share that the profile gives them."""
    target_by_category = {fill.category: fill.target for fill in fills}
    return [
        f"{fill.category}: {fill.selected:,} of {fill.target:,} rows"
        for fill in fills
        if fill.shortfall > mixture.tolerance * fill.target
    ] + [
        f"{fill.source}: {_format_share(fill.selected, target_by_category[fill.category])} of {fill.category}, not"
        f" {_format_share(fill.target, target_by_category[fill.category])} ({fill.reason or 'rounded'})"
        for fill in source_fills
        if fill.has_share
        and abs(fill.selected - fill.target) > mixture.tolerance * target_by_category[fill.category] + 1
    ]


def list_missed_rewrites(mixture: MixtureConfig, fills: Sequence[CategoryFill]) -> list[str]:
    """Return the categories whose share of rewritten rows is not what the profile wants."""
    return [
        f"{fill.category}: {_format_share(fill.rewritten, fill.selected)} of {fill.selected:,} rows are rewritten, not"
        f" {mixture.rewritten_share:.0%} ({describe_rewrites(mixture, fill)})"
        for fill in fills
        if has_missed_rewrites(mixture, fill)
    ]


def has_missed_rewrites(mixture: MixtureConfig, fill: CategoryFill) -> bool:
    """Return whether a category with group B sources has another share of rewritten rows, by more than a row."""
    if not fill.has_rewrites:
        return False
    difference = abs(fill.rewritten - mixture.rewritten_share * fill.selected)
    return difference > mixture.tolerance * fill.selected + 1


def describe_rewrites(mixture: MixtureConfig, fill: CategoryFill) -> str:
    """Return why a category has fewer or more rewritten rows than its share; empty if it has neither."""
    if not has_missed_rewrites(mixture, fill):
        return ""
    if fill.rewritten > mixture.rewritten_share * fill.selected:
        return "too few originals"
    n_available = fill.rewritten_available
    if fill.rewritten < n_available:
        return "shares and caps of sources"
    return f"only {n_available:,} can be taken" if n_available else "none can be taken"


def describe_total_rewrites(mixture: MixtureConfig, fills: Sequence[CategoryFill]) -> str:
    """Return the reached and the wanted share of rewritten rows over all categories."""
    n_rewritten, n_selected, n_target, n_rows = sum_rewrites(mixture, fills)
    return (
        f"{_format_share(n_rewritten, n_selected)} of {n_selected:,} rows are rewritten,"
        f" {_format_share(n_target, n_rows)} wanted"
    )


def sum_rewrites(mixture: MixtureConfig, fills: Sequence[CategoryFill]) -> tuple[int, int, int, int]:
    """Return over all categories: rewritten rows, rows, rewritten rows wanted, rows wanted."""
    return (
        sum(fill.rewritten for fill in fills),
        sum(fill.selected for fill in fills),
        sum(round(fill.target * mixture.rewritten_share) for fill in fills if fill.has_rewrites),
        sum(fill.target for fill in fills),
    )


def _format_share(n_rows: int, total: int) -> str:
    return f"{n_rows / total:.0%}" if total else "none"
