"""`mvl miniature`: small raw data sets in native formats, so that the road runs without a network."""

from __future__ import annotations

import click

from mvl_assets.cli.tables import show
from mvl_assets.miniature.write import link_real, write_miniatures
from mvl_assets.settings import PROJECT, settings


@click.command(name="miniature")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--rows", default=48, show_default=True, help="Rows per source, a few of them broken.")
@click.option("--seed", default=0, show_default=True)
def command(sources: tuple[str, ...], rows: int, seed: int) -> None:
    """Write small raw data sets in the sources' native formats."""
    raw = settings().raw
    linked = link_real(raw, PROJECT)
    for slug in linked:
        click.echo(f"{slug}: real files found, used instead of a miniature")
    written = write_miniatures(raw, sources or None, rows=rows, seed=seed)
    columns = ["slug", "format", "good", "broken"]
    listed = [[w.slug, w.format, w.good_rows, w.broken_rows] for w in written]
    click.echo(show(f"{len(written)} miniatures in {raw}", columns, listed))
