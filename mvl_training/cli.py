"""`mvl recipe` and `mvl step`: what training would run, and what a step of it saw. Found through entry points."""

from __future__ import annotations

import json
from typing import Any

import click

from mvl_training.data.pack_plan import PackPlan
from mvl_training.model.cost_model import Forecast, forecast, sizes_of
from mvl_training.recipe import STAGES, Recipe, StageName, load_recipe

PEAK_TFLOPS = 989.0
"""Dense bf16 of an H100 or H200 (NVIDIA's data sheets)."""


@click.group(name="recipe")
def command() -> None:
    """Show what a training recipe would run."""


@command.command()
@click.argument("name")
@click.option("--stage", "stages", multiple=True, type=click.Choice(STAGES), help="Only this stage.")
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs that share the states; default: the recipe's processes.")
@click.option("--mfu", default=0.4, show_default=True, type=click.FloatRange(0.01, 1.0), help="Share of the peak.")
@click.option("--peak", default=PEAK_TFLOPS, show_default=True, help="Dense bf16 TFLOP/s of one GPU.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list, one object a stage.")
def show(name: str, stages: tuple[StageName, ...], gpus: int | None, mfu: float, peak: float, json_: bool) -> None:
    """Parameters, steps, FLOPs, memory per GPU and GPU-days of recipe NAME (or a YAML file)."""
    recipe = load_recipe(name)
    sizes = sizes_of(recipe)
    found = [
        forecast(recipe, stage, sizes, gpus=gpus or recipe.processes, plan=_planned(recipe, stage))
        for stage in stages or tuple(recipe.stages)
    ]
    if json_:
        listed = [{**one.as_data(), "mfu": mfu, "gpu_days": one.gpu_days(mfu, peak * 1e12)} for one in found]
        click.echo(json.dumps(listed, indent=2))
        return
    for one in found:
        click.echo("\n".join(_lines(one, recipe, mfu, peak)))


@click.command(name="step")
@click.argument("stage", type=click.Choice(STAGES))
@click.argument("number", type=click.IntRange(min=1))
@click.option("--json", "json_", is_flag=True, help="As a JSON list, one object a row.")
def step(stage: StageName, number: int, json_: bool) -> None:
    """List the mixture rows that step NUMBER of the current checkpoint of STAGE was trained on."""
    from mvl_assets.config.settings import settings
    from mvl_assets.lake.lake import Lake
    from mvl_training.runs.stage_run import current_checkpoint
    from mvl_training.runs.step_rows import rows_of_step

    rows = rows_of_step(Lake(settings().lake_root), current_checkpoint(stage), number)
    if json_:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['row_id']}  pack {row['pack']}  {row['tokens']:>6} tokens  {row['kind']:<9} {row['source']}")
    click.echo(f"{len(rows)} rows; `mvl trace ROW` says where one came from")


def _planned(recipe: Recipe, stage: StageName) -> PackPlan | None:
    """The stage's pack plan, when the lake has one and the profile in use names this recipe."""
    from mvl_assets.config.settings import settings
    from mvl_assets.lake.lake import Lake
    from mvl_training.runs.stage_run import current_recipe

    lake = Lake(settings().lake_root)
    if current_recipe()[1] != recipe or not lake.table(f"pack_plan/{stage}").count():
        return None
    return PackPlan(lake, stage)


def _lines(one: Forecast, recipe: Recipe, mfu: float, peak: float) -> list[str]:
    stage = recipe.stage(one.stage)
    parts = [
        f"{part} {_count(count)}" + (f" at {one.trained[part]:g}" if part in one.trained else " frozen")
        for part, count in one.parameters.items()
    ]
    each = f"{one.data.tokens:,.0f} tokens and {one.data.tiles:.1f} tiles"
    rows: list[tuple[str, Any]] = [
        ("parameters", f"{_count(sum(one.parameters.values()))}: {', '.join(parts)}"),
        ("data", f"{one.data.samples:,} samples of {each} ({one.basis})"),
        ("steps", f"{one.steps:,} of {one.samples / one.steps:,.4g} samples, packs of {stage.length:,} tokens"),
        ("schedule", f"{stage.schedule}, warm-up {stage.warmup:g}, clip {stage.clip:g}, {stage.precision}"),
        ("FLOPs", f"{one.flops:.3g}, {one.flops_per_token / 1e9:.1f} G per token"),
        ("GPU-days", f"{one.gpu_days(mfu, peak * 1e12):.2f} at {mfu:.0%} of {peak:g} TFLOP/s"),
        ("memory per GPU", f"GiB on {one.gpus} GPUs; activations are an estimate, logits come on top"),
    ]
    for zero, memory in one.memory.items():
        mark = " <- the recipe's" if zero == one.zero else ""
        rows.append(
            (
                f"  ZeRO-{zero}",
                f"{memory.total:6.1f} = weights {memory.weights:.1f} + gradients {memory.gradients:.1f}"
                f" + optimizer {memory.optimizer:.1f} + activations {memory.activations:.1f}"
                + (f"; {memory.host:.1f} on the host" if memory.host else "")
                + mark,
            )
        )
    return [f"{one.recipe} / {one.stage}", *(f"  {name:<15} {value}" for name, value in rows), ""]


def _count(parameters: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)
