"""The columns that filters of rows may name: what category, rewritten and judged tables say of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN, TEXT_FACTS
from mvl_assets.lake.schemas.table_spec import TableSpec
from mvl_assets.lake_queries.mixtures.row_filter import Clause, RowFilter, ScoreType

KIND = "kind"
"""Whether a row is `original` or `rewritten`, which no table says."""

# In this order: what a rewritten row's own tables say of it goes before what is said of its sample.
_TEXT_FACTS = tuple(name for name, _ in TEXT_FACTS)
_TABLES: tuple[tuple[TableSpec, tuple[str, ...]], ...] = (
    (JUDGED, ("p_yes", "all_yes", "matches_reference")),
    (REWRITTEN, ("task_type", "prompt", "model", "blind", *_TEXT_FACTS)),
    (
        CATEGORY,
        (
            *("source", "family", "modality", "license", "n_images", "n_turns", "n_chars", "n_tiles", "image_action"),
            *("sharpness", *_TEXT_FACTS),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class ScoreSelection:
    """What is read for a filter, and how it becomes columns of a candidate.

    Attributes:
        judged: Columns of the judged table.
        rewritten: Columns of the rewritten table.
        category: Columns of the category table.
        expressions: The columns of the filter in SQL: over `s`, the category table, and `r`, a rewrite with the
            columns of the other two as `judged_<name>` and `rewritten_<name>`.
        clauses: The clauses of the filter over these.
    """

    judged: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    expressions: Mapping[str, str] = field(default_factory=dict)
    clauses: Sequence[Clause] = ()


def list_score_types() -> dict[str, ScoreType]:
    """Return the type of every column that a filter may name."""
    types: dict[str, ScoreType] = {KIND: "text"}
    for spec, names in _TABLES:
        types |= {name: _get_type(spec.columns.field(name).type) for name in names}
    return types


def select_scores(row_filter: RowFilter | None) -> ScoreSelection:
    """Return what a filter needs of the tables; nothing without a filter."""
    if row_filter is None:
        return ScoreSelection()
    selected: dict[str, list[str]] = {
        spec.name: [name for name in names if name in row_filter.columns] for spec, names in _TABLES
    }
    expressions = {}
    for column in row_filter.columns:
        parts = [
            f's."{column}"' if spec is CATEGORY else f'r."{spec.name}_{column}"'
            for spec, names in _TABLES
            if column in names
        ]
        expressions[column] = f"coalesce({', '.join(parts)})"
    if KIND in expressions:
        expressions[KIND] = "if(r.rewrite_id IS NULL, 'original', 'rewritten')"
    return ScoreSelection(
        selected[JUDGED.name], selected[REWRITTEN.name], selected[CATEGORY.name], expressions, row_filter.clauses
    )


def _get_type(type_: pa.DataType) -> ScoreType:
    if pa.types.is_boolean(type_):
        return "boolean"
    return "text" if pa.types.is_string(type_) else "number"
