"""The assets `pack_plan/<training stage>`."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
from collections.abc import Mapping
from typing import Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.orchestration.metadata import (
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    read_first_rows,
    render_in_dialog,
    render_preview,
)
from mvl_assets.stages import PACK_PLAN
from mvl_training.orchestration.asset_defaults import OWNERS, build_code_version, open_lake
from mvl_training.orchestration.launch import Launcher
from mvl_training.recipe import Recipe
from mvl_training.runs import training_run

# Increased by hand when the meaning of the code changes; the inputs are hashed as well.
PLAN_CODE_VERSION = "3"
PREVIEW_COLUMNS = ("position", "row_id", "n_tokens", "n_loss_tokens", "n_tiles")


def build_pack_plan_asset(stage: TrainingStage, recipe: Recipe) -> dg.AssetsDefinition:
    """Return the asset `pack_plan/<stage>`."""
    key = dg.AssetKey([PACK_PLAN.name, stage])

    @dg.asset(
        key=key,
        group_name=PACK_PLAN.name,
        description=f"The rows of the {stage} mixture in the order of training, with exact counts of tokens and tiles."
        " A step takes the next samples of this order on any number of ranks; they share sequences, balanced over"
        " ranks and micro-steps by their work. No sample attends to another, and none is cut.",
        deps=[dg.AssetKey(["mixture", stage])],
        kinds={"lance"},
        owners=OWNERS,
        tags={metadata_keys.STAGE: stage},
        code_version=build_code_version(PLAN_CODE_VERSION, recipe.build_plan_inputs(stage)),
        check_specs=[build_schema_check(key)],
    )
    def pack_plan(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        lake = open_lake()
        plan_dir = training_run.get_plan_dir(stage)
        report_path = plan_dir / "report.json"
        launcher.run(
            context, training_run.build_plan_command(stage, lake.address, context.run_id, report_path), run_dir=plan_dir
        )
        report = training_run.read_json(report_path)
        table = lake.get_table(f"pack_plan/{stage}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report["data_version"]),
            metadata={
                **build_table_metadata(table, rows=table.count()),
                **build_plan_metadata(report),
                metadata_keys.PREVIEW: render_preview(
                    lake, read_first_rows(table, PREVIEW_COLUMNS, None), PREVIEW_COLUMNS
                ),
            },
            check_results=[build_schema_result(key, table)],
        )

    return pack_plan


def build_plan_metadata(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the UI metadata of a pack plan.

    Args:
        report: A `PackPlanReport` and, as `lockstep`, `LockstepForecast`s, as plain values.
    """
    # Imports the tokenizers library, which loading the definitions should not pay for.
    from mvl_training.data.mixture_stats import render_shares_table
    from mvl_training.runs.lockstep import render_lockstep_table

    reject_lines = "\n".join(f"| {error} | {n_rows} |" for error, n_rows in report["rejects_by_error"].items())
    return {
        metadata_keys.SAMPLES: report["n_samples"],
        metadata_keys.TOKENS: report["n_tokens"],
        metadata_keys.LOSS_TOKENS: report["n_loss_tokens"],
        metadata_keys.TILES: report["n_tiles"],
        metadata_keys.LOCKSTEP_EFFICIENCY: report["lockstep"][0]["efficiency"],
        metadata_keys.LOCKSTEP: render_in_dialog(render_lockstep_table(report["lockstep"])),
        metadata_keys.BALANCE: render_in_dialog(render_shares_table(report["shares"])),
        **{
            f"{metadata_keys.VISUAL_SHARE_OF_SAMPLE}_{percentile}": share
            for percentile, share in report["visual_share_percentiles"].items()
        },
        metadata_keys.REJECTED: sum(report["rejects_by_error"].values()),
        metadata_keys.REJECTS: dg.MarkdownMetadataValue(
            f"| error | rows |\n|---|---|\n{reject_lines}" if reject_lines else "none"
        ),
        metadata_keys.SECONDS: report["duration_s"],
    }
