"""Building the small filter expressions that Lance's scanner takes. Values never reach SQL unquoted."""

from __future__ import annotations

from collections.abc import Iterable


def literal(value: str | int | float | bool) -> str:
    """A SQL literal. Strings are quoted with doubled quotes; NUL bytes are refused."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if "\x00" in value:
        raise ValueError("a filter value may not contain NUL")
    return "'" + value.replace("'", "''") + "'"


def equals(column: str, value: str | int | bool) -> str:
    return f"{quoted(column)} = {literal(value)}"


def within(column: str, values: Iterable[str]) -> str:
    listed = ", ".join(literal(v) for v in values)
    return f"{quoted(column)} IN ({listed})" if listed else "false"


def quoted(column: str) -> str:
    """A column name that may be an SQL word, such as `group`."""
    return f"`{column}`"
