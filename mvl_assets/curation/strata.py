"""Strata: the parts of a source between which a mixture chooses evenly, by the values of one column."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pyarrow as pa

from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.config.mixture_config import StrataConfig
from mvl_assets.errors import MvlError
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN
from mvl_assets.lake_queries.mixtures.candidate_tables import StratumColumn
from mvl_assets.lake_queries.mixtures.candidates import NO_STRATUM

_TABLES = (JUDGED, REWRITTEN, CATEGORY)


def resolve_strata(strata: StrataConfig) -> StratumColumn:
    """Return where the column of the strata is, looked up in the judged, rewritten and category tables, in this order.

    Raises:
        MvlError: There is no such column, it is not one of single values, or its type and the edges do not go together.
    """
    columns = {
        field.name: (spec.name, field.type) for spec in reversed(_TABLES) for field in spec.columns if _is_single(field)
    }
    if strata.column not in columns:
        raise MvlError(
            f"mixture: strata: there is no column {strata.column!r} of single values in judged, rewritten or category",
            hint=f"{format_suggestion(strata.column, columns)}there are: {', '.join(sorted(columns))}",
        )
    table, type_ = columns[strata.column]
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    if strata.edges and not is_number:
        raise MvlError(f"mixture: strata: {strata.column} is no number, so its strata have no edges")
    if not strata.edges and pa.types.is_floating(type_):
        raise MvlError(
            f"mixture: strata: {strata.column} is a number with a fraction, so its strata need edges",
            hint=f"for instance strata: {{column: {strata.column}, edges: [0.5, 0.8]}}",
        )
    return StratumColumn(table, strata.column, _build_expression(strata, is_floating=pa.types.is_floating(type_)))


def list_strata(strata: StrataConfig) -> Mapping[str, float]:
    """Return the shares of the strata between the edges, by their names; none without edges: all values are equal."""
    if not strata.edges:
        return {}
    shares = strata.shares or [1.0] * (len(strata.edges) + 1)
    return dict(zip(_format_ranges(strata.edges), shares, strict=True))


def _is_single(field: pa.Field) -> bool:
    return not pa.types.is_nested(field.type) and field.name != "run_id"


def _format_ranges(edges: list[float]) -> list[str]:
    """Return the names of the ranges below, between and above the edges, numbered so that they sort."""
    width = len(str(len(edges)))
    bounds = [f"< {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(edges))]
    return [f"{index:0{width}d}: {name}" for index, name in enumerate([*bounds, f">= {edges[-1]:g}"])]


def _build_expression(strata: StrataConfig, *, is_floating: bool) -> str:
    if not strata.edges:
        return f"coalesce(stratum_value::VARCHAR, '{NO_STRATUM}')"
    missing = "stratum_value IS NULL" + (" OR isnan(stratum_value)" if is_floating else "")
    # The names have digits, signs and words of ours only.
    names = _format_ranges(strata.edges)
    ranges = " ".join(
        f"WHEN stratum_value < {edge!r} THEN '{name}'" for edge, name in zip(strata.edges, names, strict=False)
    )
    return f"CASE WHEN {missing} THEN '{NO_STRATUM}' {ranges} ELSE '{names[-1]}' END"
