"""Which rows of mixtures the terms of their sources and models permit to use, and which are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvl_assets.common.licenses import UNKNOWN, Use, permits, to_spdx
from mvl_assets.config.profile import Profile
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.provenance_counts import count_by_license, count_by_prompt


@dataclass(frozen=True, slots=True)
class RefusedRows:
    """Rows that an export leaves out, and why."""

    n_rows: int
    reason: str


def build_mixture_filter(lake: Lake, profile: Profile, stages: Sequence[str], use: Use) -> MixtureFilter | None:
    """Return the filter of a use; None for all rows.

    A rewrite is under the terms of its source and of the model that wrote it. Those of a model are in the profile; a
    model whose terms are not known permits nothing.
    """
    if use == "all":
        return None
    licenses = {count["license"] for count in count_by_license(lake, stages)} - {None}
    terms_by_model = {model.name: model.license for model in profile.models.values()}
    models = {row["model"] for row in count_by_prompt(lake)} - {None}
    return MixtureFilter(
        use,
        frozenset(name for name in licenses if permits(name, use)),
        frozenset(name for name in models if permits(terms_by_model.get(name), use)),
    )


def list_refused_rows(lake: Lake, stages: Sequence[str], mixture_filter: MixtureFilter) -> list[RefusedRows]:
    """Return what the filter leaves out of these mixtures: by licence, and the rewrites of models."""
    taken = {count["license"]: count["rows"] for count in count_by_license(lake, stages, mixture_filter)}
    refused, n_rewrites = [], 0
    for count in count_by_license(lake, stages):
        name, n_rows = count["license"], count["rows"] - taken.get(count["license"], 0)
        if name in mixture_filter.licenses:
            n_rewrites += n_rows
        else:
            terms = "no known licence" if to_spdx(name) == UNKNOWN else f"the licence {name}"
            refused.append(RefusedRows(n_rows, f"sources with {terms}"))
    if n_rewrites:
        models = sorted({str(row["model"]) for row in count_by_prompt(lake)} - mixture_filter.models)
        terms = "whose license in the profile does not permit it, or is missing"
        refused.append(RefusedRows(n_rewrites, f"rewrites by {', '.join(models)}, {terms}"))
    return refused
