"""Filters of rows: conditions over scores, read from a profile and checked before anything is asked of the database.

A filter is an expression of SQL: comparisons, `in`, `between`, `like`, `is null`, `and`, `or`, `not`, arithmetic, and
constants. DuckDB's parser reads it; every node is then checked by name, and the types of both sides are compared.

What is unknown leaves nothing out: a row is refused if the filter is false for it, not if a score is null that it
would need. An original has no P(yes), and a source that nobody has rated no rating; who wants rated rows only writes
`rating is not null`. How many rows a clause could not decide is counted with those that it refuses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mvl_assets.common.score_type import ScoreType
from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.errors import MvlError

MAX_CHARS, MAX_CLAUSES = 10_000, 62
"""Length of a filter, and its clauses: each has a bit of a 64-bit number."""

_COMPARISONS = frozenset(
    f"COMPARE_{name}"
    for name in (
        "EQUAL",
        "NOTEQUAL",
        "LESSTHAN",
        "GREATERTHAN",
        "LESSTHANOREQUALTO",
        "GREATERTHANOREQUALTO",
        "BETWEEN",
        "NOT_BETWEEN",
        "IN",
        "NOT_IN",
    )
)
_ARITHMETIC = frozenset("+-*/%")
_MATCHES = {"~~": "like", "!~~": "not like", "~~*": "ilike", "!~~*": "not ilike"}
_LITERALS: dict[str, ScoreType | None] = {
    "INTEGER": "number",
    "NUMERIC": "number",
    "STRING": "text",
    "BOOLEAN": "boolean",
    "NULL_LITERAL": None,
}
_PREFIX = "SELECT 1 WHERE "


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a filter that all rows have to pass: as it was written, and as DuckDB prints it."""

    text: str
    sql: str


@dataclass(frozen=True, slots=True)
class RowFilter:
    """A checked filter.

    Attributes:
        text: The whole of it.
        clauses: Its parts, which `and` joins.
        columns: The columns that it needs, as the profile names them.
    """

    text: str
    clauses: tuple[Clause, ...]
    columns: tuple[str, ...]


def parse_row_filter(text: str, columns: Mapping[str, ScoreType]) -> RowFilter:
    """Return a filter, checked.

    Args:
        text: The expression.
        columns: The columns that it may name, such as `p_yes` or `finevision.relevance`, with their types.

    Raises:
        MvlError: It cannot be read, names an unknown column, compares different types, or is more than a condition.
    """
    return _FilterParser(text, columns).parse()


class _FilterParser:
    def __init__(self, text: str, columns: Mapping[str, ScoreType]) -> None:
        self._text = text
        self._columns = columns
        self._used: dict[str, None] = {}

    def parse(self) -> RowFilter:
        import duckdb

        if len(self._text) > MAX_CHARS:
            raise self._build_error(f"has {len(self._text):,} characters, and may have {MAX_CHARS:,}")
        with duckdb.connect(config={"enable_external_access": False, "lock_configuration": True}) as con:

            def call(function: str, argument: str) -> str:
                return str(con.execute(f"SELECT {function}($1)", [argument]).fetchall()[0][0])

            try:
                document = json.loads(call("json_serialize_sql", _PREFIX + self._text))
            except (duckdb.Error, ValueError, RecursionError) as error:
                raise self._build_error("cannot be read") from error
            condition = self._get_condition(document)
            # `and` in `and` is one list of clauses.
            parts = condition["children"] if condition["type"] == "CONJUNCTION_AND" else [condition]
            if len(parts) > MAX_CLAUSES:
                raise self._build_error(f"has {len(parts)} clauses, and may have {MAX_CLAUSES}")
            try:
                for part in parts:
                    self._require(self._check(part), "boolean", part)
            except RecursionError as error:
                raise self._build_error("is nested too deeply") from error
            clauses = tuple(self._build_clause(part, document, call) for part in parts)
        return RowFilter(self._text, clauses, tuple(self._used))

    def _get_condition(self, document: dict[str, Any]) -> dict[str, Any]:
        if document["error"]:
            message = str(document["error_message"]).partition("\n")[0]
            raise self._build_error(f"{message[:1].lower()}{message[1:]}" if self._text.strip() else "is empty")
        statements = document["statements"]
        node = statements[0]["node"] if len(statements) == 1 else {}
        condition = node.get("where_clause")
        further = [name for name in ("modifiers", "group_expressions", "having", "qualify", "sample") if node.get(name)]
        if node.get("type") != "SELECT_NODE" or not condition or further:
            raise self._build_error("is more than a condition")
        return dict(condition)

    def _build_clause(self, part: dict[str, Any], document: dict[str, Any], call: Callable[[str, str], str]) -> Clause:
        node = document["statements"][0]["node"] | {"where_clause": part}
        statement = document | {"statements": [document["statements"][0] | {"node": node}]}
        sql = call("json_deserialize_sql", json.dumps(statement)).removeprefix(_PREFIX)
        text = sql.removeprefix("(").removesuffix(")") if sql.startswith("(") and sql.endswith(")") else sql
        return Clause(text.replace('"', ""), sql)

    def _check(self, node: dict[str, Any]) -> ScoreType | None:
        """Return the type of an expression, None for a null. Names of columns are rewritten as single words."""
        kind, type_ = node["class"], node["type"]
        if kind == "COLUMN_REF":
            return self._check_column(node)
        if kind == "CONSTANT" and node.get("literal", {}).get("kind") in _LITERALS:
            return _LITERALS[node["literal"]["kind"]]
        operands = self._list_operands(node)
        if kind == "CONJUNCTION" or type_ == "OPERATOR_NOT":
            for operand in operands:
                self._require(self._check(operand), "boolean", operand)
            return "boolean"
        if type_ in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            self._check(operands[0])
            return "boolean"
        if type_ in _COMPARISONS:
            self._require_same([(operand, self._check(operand)) for operand in operands])
            return "boolean"
        if kind == "FUNCTION" and node["function_name"] in _ARITHMETIC:
            for operand in operands:
                self._require(self._check(operand), "number", operand)
            return "number"
        if kind == "FUNCTION" and node["function_name"] in _MATCHES:
            for operand in operands:
                self._require(self._check(operand), "text", operand)
            return "boolean"
        name = node.get("function_name") or type_.rpartition("_")[2] if kind == "FUNCTION" else kind
        raise self._build_error(f"{str(name).lower()} is not allowed: compare columns with constants", node)

    def _list_operands(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        names = ("left", "right", "input", "lower", "upper")
        operands = [node[name] for name in names if isinstance(node.get(name), dict)]
        for name in ("children", "arguments"):
            operands += [child.get("expression", child) for child in node.get(name) or []]
        return operands

    def _check_column(self, node: dict[str, Any]) -> ScoreType:
        name = ".".join(node["column_names"])
        known = {column.casefold(): column for column in self._columns}
        column = known.get(name.casefold())
        if column is None:
            raise self._build_error(f"there is no column {name}", node, format_suggestion(name, self._columns))
        node["column_names"] = [column]
        self._used[column] = None
        return self._columns[column]

    def _require(self, type_: ScoreType | None, required: ScoreType, node: dict[str, Any]) -> None:
        if type_ not in (required, None):
            article = "a " if type_ in ("number", "boolean") else ""
            needed = {"boolean": "true or false", "number": "a number", "text": "text"}[required]
            raise self._build_error(f"{self._cut(node)} is {article}{type_}, where {needed} is needed", node)

    def _require_same(self, operands: list[tuple[dict[str, Any], ScoreType | None]]) -> None:
        known = [(node, type_) for node, type_ in operands if type_ is not None]
        for node, type_ in known[1:]:
            if type_ != known[0][1]:
                first, first_type = known[0]
                raise self._build_error(
                    f"{self._cut(first)} is of type {first_type} and {self._cut(node)} of type {type_}", node
                )

    def _cut(self, node: dict[str, Any]) -> str:
        start = node["query_location"] - len(_PREFIX)
        return self._text.encode()[start : start + node["query_location_length"]].decode(errors="replace") or "it"

    def _build_error(self, problem: str, node: dict[str, Any] | None = None, suggestion: str = "") -> MvlError:
        location = "" if node is None else f" (character {node['query_location'] - len(_PREFIX) + 1})"
        return MvlError(
            f"where: {self._text[:200]!r}: {problem}{location}",
            hint=f"{suggestion}columns: {', '.join(sorted(self._columns))}",
        )
