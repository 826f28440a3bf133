"""`mvl retry`: lists the requests without a usable answer by error class, and sends them again."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import groupby

import click

from mvl_assets.common.tables import as_json, format_table
from mvl_assets.config.catalog import get_source, load_catalog
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.retry_policy import ALL_ERROR_CLASSES, RejectGroup, list_reject_groups
from mvl_assets.stages import MODEL_STAGES, SCORED

RETRIED_STAGES = [stage.name for stage in MODEL_STAGES]


@click.command(name="retry")
@click.option("--error", "errors", multiple=True, metavar="CLASS", help="Only this error class; may be given again.")
@click.option("--stage", type=click.Choice(RETRIED_STAGES), help="Only this stage.")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--list", "list_", is_flag=True, help="Only list the rejects, with an example of each class.")
@click.option("--json", "json_", is_flag=True, help="The list as JSON.")
def command(errors: tuple[str, ...], stage: str | None, sources: tuple[str, ...], list_: bool, json_: bool) -> None:
    """Send refused requests and those with unusable answers again; `mvl run` repeats other failures by itself."""
    for slug in sources:
        get_source(slug)
    lake = Lake(load_settings().lake_root)

    def select_groups() -> list[RejectGroup]:
        all_groups = list_reject_groups(lake, [stage] if stage else RETRIED_STAGES)
        return [g for g in all_groups if (not errors or g.error in errors) and (not sources or g.source in sources)]

    reject_groups = select_groups()
    if list_ or json_:
        click.echo(
            as_json([asdict(g) | {"is_auto_retried": g.is_auto_retried} for g in reject_groups])
            if json_
            else _format_rejects(reject_groups)
        )
        return
    if not reject_groups:
        click.echo("nothing to ask again; `mvl retry --list` without a filter shows every reject")
        return
    _retry_rejects(reject_groups, ",".join(errors) or ALL_ERROR_CLASSES)
    remaining_groups = select_groups()
    click.echo(_format_rejects(remaining_groups))
    n_resolved = sum(g.rows for g in reject_groups) - sum(g.rows for g in remaining_groups)
    click.echo(
        f"{n_resolved} of {sum(g.rows for g in reject_groups)} rejects are resolved; `mvl run` goes on from here"
    )


def _retry_rejects(reject_groups: list[RejectGroup], errors: str) -> None:
    import dagster as dg

    from mvl_assets.runner.asset_steps import AssetStep
    from mvl_assets.runner.pipeline_runner import PipelineRunner

    pipeline_runner = PipelineRunner(force=True)
    location_by_key = {
        key: name for name, graph in pipeline_runner.asset_graphs.items() for key in graph.materializable_asset_keys
    }
    partitions = {(g.stage, load_catalog()[g.source].category, g.source) for g in reject_groups}
    steps = [
        AssetStep(location_by_key[key], (stage, category), source, retry_errors=errors)
        for stage, category, source in sorted(partitions, reverse=True)
        # A profile that scores no rows has no asset of scores.
        if (key := dg.AssetKey([stage, category])) in location_by_key
    ]
    pipeline_runner.run_steps([step for step in steps if step.stage != SCORED.name])
    pipeline_runner.run_steps([step for step in steps if step.stage == SCORED.name])
    pipeline_runner.exit_if_failed()


def _format_rejects(reject_groups: list[RejectGroup]) -> str:
    """Return one line per stage and class, over all sources."""
    by_class = sorted(reject_groups, key=lambda g: (g.stage, g.error))
    rows: list[tuple[object, ...]] = []
    for (stage, error), same_class in groupby(by_class, key=lambda g: (g.stage, g.error)):
        class_groups = list(same_class)
        sources = Counter({g.source: g.rows for g in class_groups}).most_common(2)
        sources_text = ", ".join(f"{slug} {n}" for slug, n in sources) + (", ..." if len(class_groups) > 2 else "")
        retry_command = "mvl run" if class_groups[0].is_auto_retried else "mvl retry"
        rows.append(
            (
                stage,
                error,
                sum(g.rows for g in class_groups),
                retry_command,
                sources_text,
                class_groups[0].example[:120],
            )
        )
    columns = ["stage", "error", "rejects", "asked again by", "sources", "example"]
    return format_table(f"{sum(g.rows for g in reject_groups)} requests without a usable answer", columns, rows)
