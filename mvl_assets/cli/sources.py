"""`mvl sources`: every declared source, what is known of it and what was found."""

from __future__ import annotations

import click

from mvl_assets.catalog import CATEGORIES, load_catalog
from mvl_assets.cli.tables import as_json, show
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.report import counts_by_source
from mvl_assets.settings import settings


@click.command(name="sources")
@click.option("--category", type=click.Choice(CATEGORIES), help="Only this category.")
@click.option("--group", type=click.Choice(["A", "B", "C"]), help="Only this group of the paper.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list of objects.")
def command(category: str | None, group: str | None, json_: bool) -> None:
    """List the declared sources with what is known and what was found."""
    rows, rejects = counts_by_source(Lake(settings().lake_root))
    listed = [
        {
            "slug": slug,
            "title": spec.title,
            "category": spec.category,
            "group": spec.group,
            "outside_153": spec.outside_153,
            "modality": spec.modality,
            "format": spec.format,
            "family": spec.family,
            "license": spec.license,
            "expected": spec.expected.model_dump() if spec.expected else None,
            "state": "ingested" if rows[slug] else "files" if spec.root.is_dir() else "declared",
            "rows": rows[slug],
            "rejects": rejects[slug],
        }
        for slug, spec in load_catalog().items()
        if (category is None or spec.category == category) and (group is None or spec.group == group)
    ]
    if json_:
        click.echo(as_json(listed))
        return
    columns = ["slug", "category", "group", "format", "license", "state", "rows", "rejects"]
    click.echo(show(f"{len(listed)} sources", columns, [[s[c] for c in columns] for s in listed]))
