"""`mvl recipe` and `mvl train-rows`: what training would run, and which rows a step saw. Registered as entry points."""

from __future__ import annotations

from typing import Any

import click

from mvl_assets.common.installation import require_training_packages
from mvl_assets.common.tables import as_json, format_table
from mvl_assets.common.training_stages import TRAINING_STAGES, TrainingStage
from mvl_training.data.pack_plan import PackPlan
from mvl_training.model.cost_model import PEAK_TFLOPS_BY_DEVICE, compute_recipe_sizes
from mvl_training.recipe import Recipe, StageConfig, load_recipe
from mvl_training.runs.forecast import StageForecast, forecast_stage


@click.group(name="recipe")
def recipe_group() -> None:
    """Show what a training recipe would run."""


@recipe_group.command()
@click.argument("name")
@click.option(
    "--stage", "stages", multiple=True, type=click.Choice(TRAINING_STAGES), help="Only this stage; may be repeated."
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    help="GPUs that share the work. Default: the recipe's `nproc_per_node`.",
)
@click.option(
    "--mfu",
    default=0.4,
    show_default=True,
    type=click.FloatRange(0.01, 1.0),
    help="Model FLOPs utilisation of a GPU while it works: share of the peak.",
)
@click.option(
    "--peak", default=float(PEAK_TFLOPS_BY_DEVICE["H100"]), show_default=True, help="Dense bf16 TFLOP/s of one GPU."
)
@click.option("--json", "json_", is_flag=True, help="Print a JSON list, one object per stage.")
def show(name: str, stages: tuple[TrainingStage, ...], gpus: int | None, mfu: float, peak: float, json_: bool) -> None:
    """Show parameters, steps, FLOPs, lock-step efficiency, memory per GPU and GPU-days of recipe NAME (or a file)."""
    require_training_packages()
    recipe = load_recipe(name)
    sizes = compute_recipe_sizes(recipe)
    forecasts = [
        forecast_stage(recipe, stage, sizes, n_gpus=gpus or recipe.nproc_per_node, plan=_load_pack_plan(recipe, stage))
        for stage in stages or tuple(recipe.stages)
    ]
    if json_:
        forecast_dicts = [
            {**stage_forecast.to_dict(), "mfu": mfu, "gpu_days": stage_forecast.compute_gpu_days(mfu, peak * 1e12)}
            for stage_forecast in forecasts
        ]
        click.echo(as_json(forecast_dicts))
        return
    for stage_forecast in forecasts:
        click.echo("\n".join(_format_forecast(stage_forecast, recipe, mfu, peak)))


@click.command(name="train-rows")
@click.argument("stage", type=click.Choice(TRAINING_STAGES))
@click.argument("number", type=click.IntRange(min=1))
@click.option("--json", "json_", is_flag=True, help="Print a JSON list, one object per row.")
def list_train_rows(stage: TrainingStage, number: int, json_: bool) -> None:
    """List the mixture rows that step NUMBER of the current checkpoint of STAGE was trained on."""
    from mvl_assets.config.settings import load_settings
    from mvl_assets.lake.lake import Lake
    from mvl_training.runs.step_rows import read_step_rows
    from mvl_training.runs.training_run import load_current_checkpoint

    rows = read_step_rows(Lake(load_settings().lake_root), load_current_checkpoint(stage), number)
    if json_:
        click.echo(as_json(rows))
        return
    columns = ["row_id", "position", "tokens", "kind", "source"]
    title = f"{len(rows)} rows; `mvl trace ROW` says where one came from"
    click.echo(format_table(title, columns, [[row[column] for column in columns] for row in rows]))


def _load_pack_plan(recipe: Recipe, stage: TrainingStage) -> PackPlan | None:
    """Return the stage's pack plan, if the lake has one and the profile in use names this recipe."""
    from mvl_assets.config.settings import load_settings
    from mvl_assets.lake.lake import Lake
    from mvl_training.runs.training_run import load_current_recipe

    lake = Lake(load_settings().lake_root)
    if load_current_recipe()[1] != recipe or not lake.get_table(f"pack_plan/{stage}").count():
        return None
    return PackPlan(lake, stage)


def _format_forecast(stage_forecast: StageForecast, recipe: Recipe, mfu: float, peak: float) -> list[str]:
    stage_config, lockstep = recipe.get_stage(stage_forecast.stage), stage_forecast.lockstep
    component_counts = [
        f"{component} {_format_count(n_params)}"
        + (
            f" at {stage_forecast.learning_rates[component]:g}"
            if component in stage_forecast.learning_rates
            else " frozen"
        )
        for component, n_params in stage_forecast.params.items()
    ]
    sample_size = f"{stage_forecast.data.tokens:,.0f} tokens and {stage_forecast.data.tiles:.1f} tiles"
    rows: list[tuple[str, Any]] = [
        ("parameters", f"{_format_count(sum(stage_forecast.params.values()))}: {', '.join(component_counts)}"),
        ("data", f"{stage_forecast.data.samples:,} samples of {sample_size} ({stage_forecast.basis})"),
        (
            "steps",
            f"{stage_forecast.n_steps:,} of {stage_config.global_batch_size:,} samples,"
            f" in packs of at most {stage_config.pack_tokens:,} tokens",
        ),
        (
            "lock-step",
            f"{lockstep.efficiency:.2f} of the time of {lockstep.world_size} GPUs is work"
            f" (one sample per pack: {lockstep.unpacked_efficiency:.2f})",
        ),
        (
            "micro-steps",
            f"{lockstep.grad_accum_steps:.3g} per step, packs of {lockstep.pack_tokens:,.0f} tokens;"
            f" a GPU receives {lockstep.micro_step_gib:.3g} GiB in each",
        ),
        (
            "schedule",
            f"{stage_config.schedule}, warm-up {stage_config.warmup:g}, clip {stage_config.max_grad_norm:g},"
            f" {stage_config.precision}",
        ),
        *_describe_options(stage_forecast, stage_config),
        (
            "checkpoints",
            f"at most {stage_forecast.n_checkpoints} of {stage_forecast.checkpoint_gib:.3g} GiB at a time"
            + (f", one kept every {every:,} samples" if (every := stage_config.keep_every_samples) else ""),
        ),
        ("FLOPs", f"{stage_forecast.flops:.3g}, {stage_forecast.flops_per_token / 1e9:.1f} G per token"),
        (
            "GPU-days",
            f"{stage_forecast.compute_gpu_days(mfu, peak * 1e12):.2f} with waiting, at {mfu:.0%} of {peak:g} TFLOP/s",
        ),
        ("memory per GPU", f"GiB on {stage_forecast.n_gpus} GPUs; activations are an estimate, logits come on top"),
    ]
    for zero, memory in stage_forecast.memory.items():
        mark = " <- the recipe's" if zero == stage_forecast.zero_stage else ""
        rows.append(
            (
                f"  ZeRO-{zero}",
                f"{memory.total_gib:6.1f} = weights {memory.weights_gib:.1f} + gradients {memory.gradients_gib:.1f}"
                f" + optimizer {memory.optimizer_gib:.1f} + activations {memory.activations_gib:.1f}"
                + (f"; {memory.host_gib:.1f} on the host" if memory.host_gib else "")
                + mark,
            )
        )
    return [f"{stage_forecast.recipe} / {stage_forecast.stage}", *(f"  {name:<15} {value}" for name, value in rows), ""]


def _describe_options(stage_forecast: StageForecast, stage_config: StageConfig) -> list[tuple[str, str]]:
    """Return a line for each option of the stage that is not off."""
    lines = []
    if (lora := stage_config.lora) is not None:
        n_params = _format_count(stage_forecast.trained_params["language"])
        targets = ", ".join(lora.targets)
        lines.append(("adapters", f"rank {lora.rank}, alpha {lora.alpha:g}: {n_params} parameters on {targets}"))
    if stage_config.gradient_checkpointing:
        kept = ", but for the outputs of attention" if stage_config.recompute == "attention_kept" else ""
        lines.append(("recomputation", f"activations of each layer{kept}"))
    kernels = [
        name
        for name, is_on in (("torch.compile", stage_config.compile_layers), ("Liger", stage_config.liger_kernels))
        if is_on
    ]
    return [*lines, ("kernels", ", ".join(kernels))] if kernels else lines


def _format_count(n_params: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if n_params >= size:
            return f"{n_params / size:.3g}{unit}"
    return str(n_params)
