"""The results as the Markdown tables of benchmarks/README.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_tables(result: Mapping[str, Any]) -> str:
    """Return the tables of the parts that a result has."""
    tables = []
    if "stages" in result:
        tables.append(_format_stages(result))
        tables.append(_format_leftovers(result["leftovers"]))
    if "commits" in result:
        tables.append(_format_commits(result["commits"]))
    return "\n\n".join(tables)


def _format_stages(result: Mapping[str, Any]) -> str:
    sizes = result["sizes"]
    header = ["stage", *(f"{n:,}" for n in sizes), "growth", "of added rows", "peak MB"]
    rows = []
    for stage, growth in result["stage_growth"].items():
        by_size = result["stages"][stage]
        costs = [f"{1e6 * by_size[n]['cpu_s'] / by_size[n]['rows']:,.0f}" for n in sizes]
        peak_mb = max(by_size[n]["peak_mb"] for n in sizes)
        rows.append([stage, *costs, growth, result["marginal_growth"].get(stage, ""), f"{peak_mb:,.0f}"])
    return _format_table(header, rows)


def _format_leftovers(leftovers: Mapping[Any, Mapping[str, Mapping[str, int]]]) -> str:
    largest = leftovers[max(leftovers, key=int)]
    names = ("tables", "data_files", "versions", "bytes")
    rows = [[family, *(f"{counts.get(name, 0):,}" for name in names)] for family, counts in largest.items()]
    return _format_table(["left behind", "tables", "data files", "versions", "bytes"], rows)


def _format_commits(commits: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> str:
    sizes = list(next(iter(commits.values())))
    rows = [
        [table.replace("_", " "), *(f"{by_size[n]['commit_cpu_ms']} ({by_size[n]['growth']}x)" for n in sizes)]
        for table, by_size in commits.items()
    ]
    return _format_table(["commit, CPU ms", *(f"{int(n):,} stored" for n in sizes)], rows)


def _format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)
