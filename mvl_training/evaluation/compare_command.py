"""`mvl compare`: two checkpoints side by side, paired by question. The command line finds it by an entry point."""

from __future__ import annotations

import dataclasses
import json

import click

from mvl_training.evaluation.compare import Comparison, compare_stored, version_of


@click.command(name="compare")
@click.argument("first")
@click.argument("second")
@click.option("--benchmark", "benchmarks", multiple=True, metavar="NAME", help="Only this benchmark; may be repeated.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(first: str, second: str, benchmarks: tuple[str, ...], json_: bool) -> None:
    """How much better SECOND answers the benchmarks than FIRST.

    Both are a stage (its current checkpoint) or the beginning of a checkpoint's version.
    """
    from mvl_assets.config.settings import settings
    from mvl_assets.lake.lake import Lake

    lake = Lake(settings().lake_root)
    found = compare_stored(lake, version_of(lake, first), version_of(lake, second), benchmarks or None)
    if json_:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
        return
    click.echo("\n".join(lines(found, first, second)))


def lines(found: list[Comparison], first: str, second: str) -> list[str]:
    """A table for a terminal: scores from 0 to 100, the difference with its 95 % interval, and McNemar's p."""
    width = max(len("benchmark"), *(len(one.benchmark) for one in found))
    head = f"{'benchmark':<{width}}  questions  {first[:12]:>12}  {second[:12]:>12}  difference (95 %)          p"
    rows = [
        f"{one.benchmark:<{width}}  {one.questions:>9}  {one.first:>12.1f}  {one.second:>12.1f}"
        f"  {one.difference:+6.1f} ({one.low:+.1f} to {one.high:+.1f})".ljust(width + 68)
        + (f"  {one.p_value:.3f}" if one.p_value is not None else "  –")
        for one in found
    ]
    return [head, *rows]
