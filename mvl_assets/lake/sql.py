"""Building the small filter expressions that Lance's scanner takes. Values never reach SQL unquoted."""

from __future__ import annotations

from collections.abc import Iterable


def format_literal(value: str | int | float | bool) -> str:
    """A SQL literal. Strings are quoted with doubled quotes; NUL bytes are refused."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if "\x00" in value:
        raise ValueError("a filter value may not contain NUL")
    return "'" + value.replace("'", "''") + "'"


def equals(column: str, value: str | int | bool) -> str:
    return f"{quote_identifier(column)} = {format_literal(value)}"


def is_in(column: str, values: Iterable[str]) -> str:
    literals = ", ".join(format_literal(v) for v in values)
    return f"{quote_identifier(column)} IN ({literals})" if literals else "false"


def quote_identifier(column: str) -> str:
    """A column name that may be an SQL word, such as `group`."""
    return f"`{column}`"
