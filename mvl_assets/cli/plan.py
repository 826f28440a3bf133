"""`mvl plan`: what rewriting and judging would send, and what it would cost, before anything is sent."""

from __future__ import annotations

from dataclasses import asdict

import click

from mvl_assets.catalog import source_named
from mvl_assets.cli.tables import as_json, show
from mvl_assets.defs import graph
from mvl_assets.judging.plan import plan_judge
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.plan import plan_rewrite
from mvl_assets.settings import settings


@click.command(name="plan")
@click.argument("stage", type=click.Choice(["rewrite", "judge"]))
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Rows per source, by hash; a larger limit contains a smaller."
)
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def command(stage: str, sources: tuple[str, ...], limit: int | None, json_: bool) -> None:
    """Say what rewriting or judging would send, before anything is sent."""
    lake, profile = Lake(settings().lake_root), graph.profile()
    slugs = sources or [s for c in graph.rewritten_categories() for s in graph.rewritten_sources(c)]
    plans = []
    for slug in slugs:
        spec = source_named(slug)
        if not lake.table(f"category/{spec.category}").exists():
            continue
        plan = plan_judge(lake, spec, profile) if stage == "judge" else plan_rewrite(lake, spec, profile, limit=limit)
        if plan.wanted:
            plans.append(asdict(plan))
    if json_:
        click.echo(as_json(plans))
        return
    columns = [
        "source",
        "model",
        "wanted",
        "answered",
        "to_send",
        "prompt_tokens",
        "completion_tokens",
        "gpu_hours",
        "cost",
    ]
    rows = [[p[c] for c in columns] for p in plans]
    if plans:
        total = [sum(p[c] or 0 for p in plans) for c in columns[2:7]]
        rows.append(["all", "", *total, None, sum(p["cost"] or 0 for p in plans)])
    click.echo(show(f"{stage}: requests, tokens and cost still to come are estimates", columns, rows))
