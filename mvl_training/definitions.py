"""The training code location: assembles the assets of `orchestration`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mvl_training.orchestration.benchmark_assets import build_benchmark_assets
from mvl_training.orchestration.checkpoint_assets import build_checkpoint_asset
from mvl_training.orchestration.checkpoint_export_assets import build_export_asset
from mvl_training.orchestration.held_out_asset import build_held_out_asset
from mvl_training.orchestration.kept_checkpoint_assets import build_kept_checkpoints_asset
from mvl_training.orchestration.launch import Launcher
from mvl_training.orchestration.pack_plan_assets import build_pack_plan_asset
from mvl_training.orchestration.packed_rows_assets import build_packed_rows_asset
from mvl_training.runs.training_run import load_current_recipe


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the training definitions for the recipe of the profile in use.

    Args:
        resource_overrides: Resources by name, used instead of the default ones; tests pass a launcher of their own.
    """
    _, recipe = load_current_recipe()
    return dg.Definitions(
        assets=[
            *(build_pack_plan_asset(stage, recipe) for stage in recipe.stage_names),
            *(build_packed_rows_asset(stage, recipe) for stage in recipe.stage_names),
            *(build_checkpoint_asset(stage, recipe) for stage in recipe.stage_names),
            *(build_export_asset(stage) for stage in recipe.stage_names),
            build_held_out_asset(recipe.stage_names),
            *(build_kept_checkpoints_asset(stage) for stage in recipe.stage_names),
            *build_benchmark_assets(recipe.stage_names[-1]),
        ],
        resources={"launcher": Launcher(), **(resource_overrides or {})},
        # Steps are few and mostly wait for the processes they launch: a process per step would only cost imports.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that Dagster loads."""
    return build_defs()
