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


def format_narrow_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that nothing is folded in, however narrow the terminal; all columns but the first to the right."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in (columns, *rows)
    ]
    return "\n".join(" ".join(cells).rstrip() for cells in lines)


def format_short_number(value: float | None) -> str:
    """Return a number in at most five characters: `12.3k`, `1.23M`; empty for None."""
    if value is None:
        return ""
    size, suffix = next(
        ((size, suffix) for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(value) >= size),
        (1.0, ""),
    )
    scaled = value / size
    if not suffix and scaled == int(scaled):
        return str(int(scaled))
    return f"{scaled:.{max(0, 2 - len(str(int(abs(scaled)))) + 1)}f}{suffix}"


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def as_json(value: Any) -> str:
    """Return a value as indented JSON; what JSON does not know becomes its `str`."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
