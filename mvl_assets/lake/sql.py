"""Filter expressions for Lance's scanner. Values never reach SQL unquoted."""

from __future__ import annotations

from collections.abc import Iterable


def format_literal(value: str | int | float | bool) -> str:
    """Return a SQL literal. Raises `ValueError` for a string with a NUL byte."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if "\x00" in value:
        raise ValueError("a filter value may not contain NUL")
    return "'" + value.replace("'", "''") + "'"


def equals(column: str, value: str | int | bool) -> str:
    """Return the condition that a column has this value."""
    return f"{quote_identifier(column)} = {format_literal(value)}"


def is_in(column: str, values: Iterable[str]) -> str:
    """Return the condition that a column has one of these values; `false` without values."""
    literals = ", ".join(format_literal(v) for v in values)
    return f"{quote_identifier(column)} IN ({literals})" if literals else "false"


def quote_identifier(column: str) -> str:
    """Quote a column name, which may be a SQL keyword such as `group`."""
    return f"`{column}`"


def join_conditions(*conditions: str | None) -> str | None:
    """Return the conjunction of conditions; None if all of them are."""
    return " AND ".join(f"({condition})" for condition in conditions if condition is not None) or None
