"""Tables and JSON for the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 160
"""Width of tables that do not go to a terminal."""


def get_output_width() -> int:
    """Return the width of the terminal, or `PIPE_WIDTH` without one."""
    return Console().width if sys.stdout.isatty() else PIPE_WIDTH


def format_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, n_name_columns: int = 1) -> str:
    """Return a table as text with numbers right-aligned, folded to the terminal's width if there is a terminal.

    Args:
        title: The line above the table.
        columns: Their headers.
        rows: Their cells.
        n_name_columns: Columns that are not folded, from the first: names that a person copies.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = all(isinstance(r[index], int | float) or r[index] in ("", None) for r in rows) and bool(rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=index < n_name_columns)
    for row in rows:
        table.add_row(*(_format_cell(v) for v in row))
    console = Console(width=get_output_width())
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def as_json(value: Any) -> str:
    """Return a value as indented JSON; what JSON does not know becomes its `str`."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
