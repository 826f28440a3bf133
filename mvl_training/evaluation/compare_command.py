"""`mvl compare`: two checkpoints side by side, paired by question. The command line finds it by an entry point."""

from __future__ import annotations

import dataclasses
import json

import click

from mvl_training.evaluation.compare import CheckpointComparison, compare_checkpoints, resolve_checkpoint_version


@click.command(name="compare")
@click.argument("first")
@click.argument("second")
@click.option("--benchmark", "benchmarks", multiple=True, metavar="NAME", help="Only this benchmark; may be repeated.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(first: str, second: str, benchmarks: tuple[str, ...], json_: bool) -> None:
    """How much better SECOND answers the benchmarks than FIRST.

    Both are a stage (its current checkpoint) or the beginning of a checkpoint's version.
    """
    from mvl_assets.config.settings import load_settings
    from mvl_assets.lake.lake import Lake

    lake = Lake(load_settings().lake_root)
    comparisons = compare_checkpoints(
        lake, resolve_checkpoint_version(lake, first), resolve_checkpoint_version(lake, second), benchmarks or None
    )
    if json_:
        click.echo(json.dumps([dataclasses.asdict(comparison) for comparison in comparisons], indent=2))
        return
    click.echo("\n".join(format_table(comparisons, first, second)))


def format_table(comparisons: list[CheckpointComparison], first: str, second: str) -> list[str]:
    """A table for a terminal: scores from 0 to 100, the difference with its 95 % interval, and McNemar's p."""
    width = max(len("benchmark"), *(len(comparison.benchmark) for comparison in comparisons))
    header = f"{'benchmark':<{width}}  questions  {first[:12]:>12}  {second[:12]:>12}  difference (95 %)          p"
    rows = [
        f"{one.benchmark:<{width}}  {one.n_questions:>9}  {one.first_score:>12.1f}  {one.second_score:>12.1f}"
        f"  {one.difference:+6.1f} ({one.ci_low:+.1f} to {one.ci_high:+.1f})".ljust(width + 68)
        + (f"  {one.p_value:.3f}" if one.p_value is not None else "  –")
        for one in comparisons
    ]
    return [header, *rows]
