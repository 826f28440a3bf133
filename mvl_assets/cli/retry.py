"""`mvl retry`: what rewriting and judging could not get, by error class, and asking it again."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import groupby

import click

from mvl_assets.common.tables import as_json, show
from mvl_assets.config.catalog import load_catalog, source_named
from mvl_assets.config.settings import settings
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.retry_policy import ALL, Group, groups

STAGES = {"rewrite": "rewritten", "judge": "judged"}


@click.command(name="retry")
@click.option("--error", "errors", multiple=True, metavar="CLASS", help="Only this error class; may be given again.")
@click.option("--stage", type=click.Choice(list(STAGES)), help="Only this stage.")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--list", "list_", is_flag=True, help="Only say what there is, with an example of each class.")
@click.option("--json", "json_", is_flag=True, help="The list as JSON.")
def command(errors: tuple[str, ...], stage: str | None, sources: tuple[str, ...], list_: bool, json_: bool) -> None:
    """Ask requests again that were refused or answered uselessly; others are asked again by `mvl run`."""
    for slug in sources:
        source_named(slug)
    lake = Lake(settings().lake_root)

    def rejects() -> list[Group]:
        listed = groups(lake, [stage] if stage else list(STAGES))
        return [g for g in listed if (not errors or g.error in errors) and (not sources or g.source in sources)]

    found = rejects()
    if list_ or json_:
        click.echo(as_json([asdict(g) | {"asked_again": g.asked_again} for g in found]) if json_ else _listed(found))
        return
    if not found:
        click.echo("nothing to ask again; `mvl retry --list` without a choice shows every reject")
        return
    _ask(found, ",".join(errors) or ALL)
    after = rejects()
    click.echo(_listed(after))
    won = sum(g.rows for g in found) - sum(g.rows for g in after)
    click.echo(f"{won} of {sum(g.rows for g in found)} rejects are gone; `mvl run` goes on from here")


def _ask(found: list[Group], errors: str) -> None:
    import dagster as dg

    from mvl_assets.runner.asset_steps import Step
    from mvl_assets.runner.pipeline_runner import Road

    road = Road(force=True)
    places = {key: name for name, graph in road.graphs.items() for key in graph.materializable_asset_keys}
    parts = {(STAGES[g.stage], load_catalog()[g.source].category, g.source) for g in found}
    road.make(
        [
            Step(places[dg.AssetKey([stage, category])], (stage, category), source, retry=errors)
            for stage, category, source in sorted(parts, reverse=True)
        ]
    )
    road.end_if_failed()


def _listed(found: list[Group]) -> str:
    """One line per stage and class, over all sources."""
    by_class = sorted(found, key=lambda g: (g.stage, g.error))
    rows: list[tuple[object, ...]] = []
    for (stage, error), same in groupby(by_class, key=lambda g: (g.stage, g.error)):
        some = list(same)
        sources = Counter({g.source: g.rows for g in some}).most_common(2)
        where = ", ".join(f"{slug} {n}" for slug, n in sources) + (", ..." if len(some) > 2 else "")
        asked = "mvl run" if some[0].asked_again else "mvl retry"
        rows.append((stage, error, sum(g.rows for g in some), asked, where, some[0].example[:120]))
    columns = ["stage", "error", "rejects", "asked again by", "sources", "example"]
    return show(f"{sum(g.rows for g in found)} requests without a useful answer", columns, rows)
