"""The columns that filters of rows may name: what the lake's tables say of a row.

The columns of category, rewritten and judged tables have their own names. `p_yes.<criterion>` is the probability of Yes
to one criterion, the panel's where there is one; `content_score` and `relevance_score` are of `scored`; and
`<name>.<column>` is a score of `scores/<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from mvl_assets.common.score_type import ScoreType
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN, TEXT_FACTS
from mvl_assets.lake.schemas.table_spec import TableSpec
from mvl_assets.lake_queries.mixtures.row_filter import Clause, RowFilter

KIND = "kind"
"""Whether a row is `original` or `rewritten`, which no table says."""

# In this order: what a rewritten row's own tables say of it goes before what is said of its sample.
_TEXT_FACTS = tuple(name for name, _ in TEXT_FACTS)
_TABLES: tuple[tuple[TableSpec, tuple[str, ...]], ...] = (
    (JUDGED, ("p_yes", "all_yes", "matches_reference", "needs_image")),
    (REWRITTEN, ("task_type", "prompt", "model", "blind", *_TEXT_FACTS)),
    (
        CATEGORY,
        (
            *("source", "family", "modality", "license", "n_images", "n_turns", "n_chars", "n_tiles", "image_action"),
            *("sharpness", *_TEXT_FACTS),
        ),
    ),
)


_SCORED_COLUMNS = {"content_score": "content", "relevance_score": "relevance"}
_CRITERION_PREFIX = "p_yes."

# P(yes) of a panel by its rule, of the judges' own in a list called `p`: `judging.panel.combine_verdicts`.
_PANEL_SQL = {"mean": "list_avg(p)", "majority": "list_sort(p)[(len(p) + 1) // 2]", "unanimous": "list_min(p)"}


@dataclass(frozen=True, slots=True)
class ScoreCatalog:
    """What filters may name besides the columns of tables.

    Attributes:
        criteria: The criteria of the judges.
        panel_rule: How a panel decides.
        foreign: Columns of `scores/<name>` with their types, by name.
    """

    criteria: Sequence[str] = ()
    panel_rule: str = "majority"
    foreign: Mapping[str, Mapping[str, ScoreType]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoreSelection:
    """What is read for a filter, and how it becomes columns of a candidate.

    Attributes:
        judged: Columns of the judged table.
        rewritten: Columns of the rewritten table.
        category: Columns of the category table.
        judged_values: Further values of a row of the judged table, as SQL by name.
        uses_scored: Whether the scored table is needed.
        foreign: Columns of `scores/<name>` with their types, by name.
        expressions: The columns of the filter in SQL: over `s`, the category table, `r`, a rewrite with the columns of
            the other two as `judged_<name>` and `rewritten_<name>`, `scored`, and `foreign_<name>`.
        clauses: The clauses of the filter over these.
    """

    judged: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    judged_values: Mapping[str, str] = field(default_factory=dict)
    uses_scored: bool = False
    foreign: Mapping[str, Mapping[str, ScoreType]] = field(default_factory=dict)
    expressions: Mapping[str, str] = field(default_factory=dict)
    clauses: Sequence[Clause] = ()


def list_score_types(catalog: ScoreCatalog) -> dict[str, ScoreType]:
    """Return the type of every column that a filter may name."""
    types: dict[str, ScoreType] = {KIND: "text", **dict.fromkeys(_SCORED_COLUMNS, "number")}
    for spec, names in _TABLES:
        types |= {name: _get_type(spec.columns.field(name).type) for name in names}
    types |= {f"{_CRITERION_PREFIX}{criterion}": "number" for criterion in catalog.criteria}
    return types | {f"{name}.{column}": type_ for name, own in catalog.foreign.items() for column, type_ in own.items()}


def select_scores(row_filter: RowFilter | None, catalog: ScoreCatalog) -> ScoreSelection:
    """Return what a filter needs of the tables; nothing without a filter."""
    if row_filter is None:
        return ScoreSelection()
    selected: dict[str, list[str]] = {
        spec.name: [name for name in names if name in row_filter.columns] for spec, names in _TABLES
    }
    judged_values: dict[str, str] = {}
    foreign: dict[str, dict[str, ScoreType]] = {}
    expressions = {}
    for column in row_filter.columns:
        name, _, rest = column.partition(".")
        if column == KIND:
            expressions[column] = "if(r.rewrite_id IS NULL, 'original', 'rewritten')"
        elif column in _SCORED_COLUMNS:
            expressions[column] = f"scored.{_SCORED_COLUMNS[column]}"
        elif column.startswith(_CRITERION_PREFIX):
            judged_values[column] = _build_criterion_sql(rest, catalog.panel_rule)
            expressions[column] = f'r."{column}"'
        elif rest:
            foreign.setdefault(name, {})[rest] = catalog.foreign[name][rest]
            expressions[column] = f'"foreign_{name}"."{rest}"'
        else:
            parts = [
                f's."{column}"' if spec is CATEGORY else f'r."{spec.name}_{column}"'
                for spec, names in _TABLES
                if column in names
            ]
            expressions[column] = f"coalesce({', '.join(parts)})"
    if judged_values:
        selected[JUDGED.name] += ["verdicts", "panel"]
    return ScoreSelection(
        judged=selected[JUDGED.name],
        rewritten=selected[REWRITTEN.name],
        category=selected[CATEGORY.name],
        judged_values=judged_values,
        uses_scored=any(column in _SCORED_COLUMNS for column in row_filter.columns),
        foreign=foreign,
        expressions=expressions,
        clauses=row_filter.clauses,
    )


def _build_criterion_sql(criterion: str, panel_rule: str) -> str:
    """Return P(yes) of a criterion over a row of `judged`; null if that of one judge is not known."""
    own, member = (
        f"[v.p_yes for v in {verdicts} if v.criterion = '{criterion}'][1]" for verdicts in ("verdicts", "m.verdicts")
    )
    judges = f"list_concat([{own}], [if(m.verdicts IS NULL, 0.0, {member}) for m in coalesce(panel, [])])"
    # A list of one, so that the probabilities have a name.
    return f"[if(list_count(p) < len(p), NULL, {_PANEL_SQL[panel_rule]}) for p in [{judges}]][1]"


def _get_type(type_: pa.DataType) -> ScoreType:
    if pa.types.is_boolean(type_):
        return "boolean"
    return "text" if pa.types.is_string(type_) else "number"
