"""The rehearsal: every stage at several numbers of rows, each in a process of its own, resumable after a kill."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import start_fake_servers

from scaling.workers import StateFile

STAGES_WITH_MODEL = ("rewriting", "judging")
UNREPORTED_STAGES = ("raw_files", "tokenizer")
# In processes of their own, so that the stages' CPU time is the pipeline's alone.
N_FAKE_SERVERS = 2


def run_rehearsal(folder: Path, sizes: Sequence[int], stages: Sequence[str], *, keep: bool = False) -> dict[str, Any]:
    """Run all stages at every size and return what each cost.

    Args:
        folder: Holds the state, and for each size its files and lake.
        sizes: Numbers of rows, ascending.
        stages: Names of the stages, in order.
        keep: Keep files and lakes; otherwise those of a finished size are removed.
    """
    state = StateFile(folder / "state.jsonl")
    results: dict[str, Any] = {}
    for n_rows in sizes:
        size_folder = folder / str(n_rows)
        env = {"MVL_HOME": str(folder / "home"), "TMPDIR": str(_create_dir(size_folder / "tmp"))}
        for stage in stages:
            key = f"{n_rows}/{stage}"
            arguments = {"stage": stage, "folder": str(size_folder), "n_rows": n_rows, "base_urls": []}
            if key in state.results or stage not in STAGES_WITH_MODEL:
                result = state.run(key, "stage", arguments, env)
            else:
                with start_fake_servers(N_FAKE_SERVERS, latency_ms=0.0) as urls:
                    result = state.run(key, "stage", arguments | {"base_urls": urls}, env)
            results.setdefault(stage, {})[n_rows] = result
            if stage not in UNREPORTED_STAGES:
                print(format_line(n_rows, stage, result), file=sys.stderr)
        leftovers_key = f"{n_rows}/leftovers"
        if leftovers_key not in state.results:
            state.put(leftovers_key, count_leftovers(size_folder / "lake"))
        results.setdefault("leftovers", {})[n_rows] = state.results[leftovers_key]
        if not keep:
            shutil.rmtree(size_folder, ignore_errors=True)
    return results


def format_line(n_rows: int, stage: str, result: dict[str, Any]) -> str:
    """Return one line of the table that is printed while the rehearsal runs."""
    us_per_row = 1e6 * result["cpu_s"] / max(1, result["rows"])
    return (
        f"{n_rows:>10,}  {stage:<17} {result['rows']:>11,} rows  {us_per_row:9.1f} us CPU/row "
        f"{result['cpu_s']:9.1f} s CPU {result['wall_s']:9.1f} s {result['peak_mb']:7.0f} MB  load {result['load']}"
    )


def compute_growth(results: dict[str, Any], sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return by stage the growth of the CPU time per row, from the smallest to the largest number of rows.

    `total` divides the CPU time by the rows. `marginal`, with three sizes or more, compares the rows that the last step
    up added with those that the first step up added: what a process costs before its first row cancels out.
    """
    growth: dict[str, dict[str, float]] = {}
    for stage, by_size in results.items():
        if stage in UNREPORTED_STAGES or stage == "leftovers" or any(n not in by_size for n in sizes):
            continue
        points = [(by_size[n]["rows"], by_size[n]["cpu_s"]) for n in sizes]
        growth[stage] = {"total": _divide(points[-1][1] / points[-1][0], points[0][1] / points[0][0])}
        if len(points) > 2:
            first, last = _compute_slope(points[0], points[1]), _compute_slope(points[-2], points[-1])
            growth[stage]["marginal"] = _divide(last, first)
    return growth


def count_leftovers(lake: Path) -> dict[str, dict[str, int]]:
    """Count by table family its tables, and their data files, versions, transactions, other files and bytes."""
    counts: dict[str, Counter[str]] = {}
    for path in lake.rglob("*"):
        if not path.is_file():
            continue
        parts = path.relative_to(lake).parts
        family = parts[0].removesuffix(".lance")
        table_index = next((i for i, part in enumerate(parts) if part.endswith(".lance")), 0)
        kind = {"data": "data_files", "_versions": "versions", "_transactions": "transactions"}.get(
            parts[table_index + 1] if len(parts) > table_index + 2 else "", "other_files"
        )
        counts.setdefault(family, Counter()).update({kind: 1, "bytes": path.stat().st_size})
    for table in {path.parent for path in lake.rglob("_versions")}:
        counts[table.relative_to(lake).parts[0].removesuffix(".lance")]["tables"] += 1
    return {family: dict(counter) for family, counter in sorted(counts.items())}


def _compute_slope(first: tuple[int, float], second: tuple[int, float]) -> float:
    return (second[1] - first[1]) / max(1, second[0] - first[0])


def _divide(value: float, by: float) -> float:
    return round(value / by, 2) if by > 0 else 0.0


def _create_dir(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
