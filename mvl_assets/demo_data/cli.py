"""`mvl demo-data`: write small raw data sets in native formats, so that the pipeline runs without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click

from mvl_assets.common.tables import format_table
from mvl_assets.config.benchmarks import load_benchmarks
from mvl_assets.config.catalog import CATEGORIES, load_catalog
from mvl_assets.config.settings import PROJECT_ROOT, load_settings
from mvl_assets.demo_data.benchmark_items import DEMO_BENCHMARKS, write_demo_benchmarks
from mvl_assets.demo_data.recipes import DEMO_SLUGS, RECIPES
from mvl_assets.demo_data.write import WrittenDemoSource, iter_written_demo_sources, link_real_tabmwp

DEFAULT_ROWS, DEFAULT_ROWS_ALL = 48, 24
MAX_LISTED_SOURCES = 40
"""More sources than this are summarised by category, after one progress line for each."""


@click.command(name="demo-data")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be repeated.")
@click.option("--all", "all_", is_flag=True, help="Every source of the catalog instead of the demo's.")
@click.option(
    "--rows",
    type=int,
    help=f"Rows per source, including a few invalid ones [{DEFAULT_ROWS}; {DEFAULT_ROWS_ALL} with --all].",
)
@click.option("--seed", default=0, show_default=True)
def command(sources: tuple[str, ...], all_: bool, rows: int | None, seed: int) -> None:
    """Write small raw data sets in the sources' native formats."""
    if all_ and sources:
        raise click.UsageError("give --all or --source, not both")
    raw_dir = load_settings().raw_dir
    slugs = list(dict.fromkeys(sources)) or list(RECIPES if all_ else DEMO_SLUGS)
    real_slugs = link_real_tabmwp(raw_dir, PROJECT_ROOT)
    for slug in real_slugs:
        click.echo(f"{slug}: real files found, used instead of demo data")
    n_rows = rows if rows is not None else DEFAULT_ROWS_ALL if all_ else DEFAULT_ROWS
    datasets = []
    for dataset in iter_written_demo_sources(raw_dir, slugs, n_rows, seed):
        datasets.append(dataset)
        if len(slugs) > MAX_LISTED_SOURCES:
            progress = f"{slugs.index(dataset.slug) + 1:3d}/{len(slugs)}"
            click.echo(
                f"{progress} {dataset.slug}: {dataset.n_good_rows} valid, {dataset.n_rejects} invalid, {dataset.state}"
            )
    title = f"{len(datasets)} demo sources in {raw_dir}"
    click.echo(
        _format_by_category(title, datasets) if len(slugs) > MAX_LISTED_SOURCES else _format_by_source(title, datasets)
    )
    # With --source only what was named is written.
    benchmark_slugs = () if sources else tuple(load_benchmarks()) if all_ else DEMO_BENCHMARKS
    if benchmarks := write_demo_benchmarks(raw_dir, benchmark_slugs, n_rows, seed):
        click.echo(f"and items of {len(benchmarks)} benchmarks, which nothing trains on: {', '.join(benchmarks)}")
    skipped_slugs = [slug for slug in slugs if slug not in {*real_slugs, *(done.slug for done in datasets)}]
    if skipped_slugs:
        click.echo(f"skipped, the files there are not demo data: {', '.join(skipped_slugs)}")


def _format_by_source(title: str, datasets: Sequence[WrittenDemoSource]) -> str:
    rows = [[dataset.slug, dataset.format, dataset.n_good_rows, dataset.n_rejects] for dataset in datasets]
    return format_table(title, ["slug", "format", "valid", "invalid"], rows)


def _format_by_category(title: str, datasets: Sequence[WrittenDemoSource]) -> str:
    n_sources: Counter[str] = Counter()
    n_good: Counter[str] = Counter()
    n_rejects: Counter[str] = Counter()
    for dataset in datasets:
        for name in (load_catalog()[dataset.slug].category, "all"):
            n_sources[name] += 1
            n_good[name] += dataset.n_good_rows
            n_rejects[name] += dataset.n_rejects
    rows = [[name, n_sources[name], n_good[name], n_rejects[name]] for name in (*CATEGORIES, "all") if n_sources[name]]
    return format_table(title, ["category", "sources", "valid", "invalid"], rows)
