"""Whether the shares and caps of sources in a profile's mixtures can be reached, by the catalog alone."""

from __future__ import annotations

from collections.abc import Iterator

from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.config.profile import Profile
from mvl_assets.errors import MvlError


def require_reachable_shares(profile: Profile) -> None:
    """Refuse a profile whose mixtures cannot have the shares and caps of sources that it says.

    Raises:
        MvlError: Names the first mistake: an unknown source, one that no mixture takes, shares of a category's sources
            over 1 or (of all of them) under 1, a cap below a share, or caps that do not fill a category's share.
    """
    mixture = profile.mixture
    if mixture.sources or mixture.max_source_rows is not None:
        for problem in _iter_problems(profile, mixture):
            raise MvlError(f"profile {profile.name}: mixture: {problem}", hint="correct the profile")


def _iter_problems(profile: Profile, mixture: MixtureConfig) -> Iterator[str]:
    catalog = load_catalog()
    for slug in mixture.sources:
        if slug not in catalog:
            yield f"sources.{slug}: there is no such source. {format_suggestion(slug, catalog)}`mvl sources` lists them"
        elif catalog[slug].group not in ("A", "B"):
            yield f"sources.{slug}: it is of group {catalog[slug].group}, which no mixture takes"
        elif profile.sources != "all" and slug not in profile.sources:
            yield f"sources.{slug}: it is not among the `sources` of the profile"
    slugs_by_category: dict[str, list[str]] = {}
    for slug, spec in catalog.items():
        if spec.group in ("A", "B") and (profile.sources == "all" or slug in profile.sources):
            slugs_by_category.setdefault(spec.category, []).append(slug)
    targets = {
        category: max(mixture.compute_targets(stage).get(category, 0) for stage in TRAINING_STAGES)
        for category in slugs_by_category
    }
    for category, slugs in slugs_by_category.items():
        yield from _iter_category_problems(mixture, category, slugs, targets[category])


def _iter_category_problems(mixture: MixtureConfig, category: str, slugs: list[str], target: int) -> Iterator[str]:
    """Yield what is wrong with the sources of a category, of which no training stage takes more than `target` rows."""
    shares = {slug: mixture.sources[slug].share for slug in slugs if slug in mixture.sources}
    given_shares = {slug: share for slug, share in shares.items() if share is not None}
    if given_shares and not target:
        yield f"sources.{next(iter(given_shares))}: its category {category} has no rows: give it a share in `shares`"
    total_share = sum(given_shares.values())
    names = ", ".join(given_shares)
    if total_share > 1 + 1e-9:
        yield f"the shares of {category}'s sources ({names}) add up to {total_share:g}, which is more than 1"
    if len(given_shares) == len(slugs) and total_share < 1 - 1e-9:
        yield (
            f"the shares of {category}'s sources ({names}) add up to {total_share:g}, and there is no other source to"
            " take the rest: let them add up to 1, or leave one out"
        )
    for slug, share in given_shares.items():
        cap = mixture.get_source_cap(slug)
        if cap is not None and round(share * target) > cap:
            yield (
                f"sources.{slug}: its share {share:g} of {category}'s {target:,} rows is {round(share * target):,}"
                f" rows, and its cap {cap:,}"
            )
    caps = [0 if given_shares.get(slug) == 0 else mixture.get_source_cap(slug) for slug in slugs]
    total_cap = sum(cap for cap in caps if cap is not None)
    if None not in caps and total_cap < target:
        yield (
            f"the caps of {category}'s {len(slugs)} sources allow {total_cap:,} rows, and its share is {target:,} rows:"
            " raise max_source_rows or max_rows, or lower its share"
        )
