"""`mvl demo-data`: small raw data sets in native formats, so that the road runs without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click

from mvl_assets.common.tables import show
from mvl_assets.config.catalog import CATEGORIES, load_catalog
from mvl_assets.config.settings import PROJECT, settings
from mvl_assets.demo_data.recipes import DEMO_SLUGS, RECIPES
from mvl_assets.demo_data.write import Written, link_real, write_each

ROWS, ROWS_OF_ALL = 48, 24
LONG = 40
"""More sources than this are summed up by category; a line for each has been printed by then."""


@click.command(name="demo-data")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--all", "all_", is_flag=True, help="Every source of the catalog instead of the demo's.")
@click.option("--rows", type=int, help=f"Rows per source, a few of them broken [{ROWS}; {ROWS_OF_ALL} with --all].")
@click.option("--seed", default=0, show_default=True)
def command(sources: tuple[str, ...], all_: bool, rows: int | None, seed: int) -> None:
    """Write small raw data sets in the sources' native formats."""
    if all_ and sources:
        raise click.UsageError("give --all or --source, not both")
    raw = settings().raw
    wanted = list(dict.fromkeys(sources)) or list(RECIPES if all_ else DEMO_SLUGS)
    real = link_real(raw, PROJECT)
    for slug in real:
        click.echo(f"{slug}: real files found, used instead of a miniature")
    count = rows if rows is not None else ROWS_OF_ALL if all_ else ROWS
    written = []
    for done in write_each(raw, wanted, count, seed):
        written.append(done)
        if len(wanted) > LONG:
            place = f"{wanted.index(done.slug) + 1:3d}/{len(wanted)}"
            click.echo(f"{place} {done.slug}: {done.good_rows} good, {done.broken_rows} broken, {done.state}")
    title = f"{len(written)} miniatures in {raw}"
    click.echo(_by_category(title, written) if len(wanted) > LONG else _by_source(title, written))
    left_alone = [slug for slug in wanted if slug not in {*real, *(done.slug for done in written)}]
    if left_alone:
        click.echo(f"left alone, the files there are not miniatures: {', '.join(left_alone)}")


def _by_source(title: str, written: Sequence[Written]) -> str:
    rows = [[done.slug, done.format, done.good_rows, done.broken_rows] for done in written]
    return show(title, ["slug", "format", "good", "broken"], rows)


def _by_category(title: str, written: Sequence[Written]) -> str:
    sources: Counter[str] = Counter()
    good: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for done in written:
        for name in (load_catalog()[done.slug].category, "all"):
            sources[name] += 1
            good[name] += done.good_rows
            broken[name] += done.broken_rows
    rows = [[name, sources[name], good[name], broken[name]] for name in (*CATEGORIES, "all") if sources[name]]
    return show(title, ["category", "sources", "good", "broken"], rows)
