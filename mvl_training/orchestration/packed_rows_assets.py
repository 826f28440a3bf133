"""The assets `packed_rows/<training stage>`."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as they are.
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.execution.create import create_executor
from mvl_assets.orchestration.metadata import (
    SCHEMA_CHECK,
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    read_first_rows,
    render_preview,
)
from mvl_assets.stages import PACK_PLAN, PACKED_ROWS
from mvl_training.data import pack_materializer
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.orchestration.asset_defaults import OWNERS, build_code_version, open_lake
from mvl_training.recipe import Recipe

# Increased by hand when the meaning of the code changes; the inputs are hashed as well.
PACKED_ROWS_CODE_VERSION = "2"
PROGRESS_INTERVAL_S = 10.0
PREVIEW_COLUMNS = ("position", "row_id", "source", "n_tokens", "n_loss_tokens", "n_tiles")


def build_packed_rows_asset(stage: TrainingStage, recipe: Recipe) -> dg.AssetsDefinition:
    """Return the asset `packed_rows/<stage>`."""
    key = dg.AssetKey([PACKED_ROWS.name, stage])

    @dg.asset(
        key=key,
        group_name=PACKED_ROWS.name,
        description=f"The rows of the {stage} plan with their texts and image bytes, in the order of training, so"
        " that ranks read them in sequence and start at once. The table is an export as well. Made for large mixtures"
        " (`materialize_packs` in the profile); smaller ones are read in place and leave it empty.",
        deps=[dg.AssetKey([PACK_PLAN.name, stage])],
        kinds={"lance"},
        owners=OWNERS,
        tags={metadata_keys.STAGE: stage},
        code_version=build_code_version(
            PACKED_ROWS_CODE_VERSION, {"materialize_packs": load_profile(load_settings().profile).materialize_packs}
        ),
        check_specs=[build_schema_check(key)],
    )
    def packed_rows(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake, profile = open_lake(), load_profile(load_settings().profile)
        table = lake.get_table(f"packed_rows/{stage}")
        if not lake.get_table(f"pack_plan/{stage}").count():
            raise MvlError(
                f"the pack plan for {stage} is missing or empty", hint=f"materialise pack_plan/{stage} first"
            )
        if not pack_materializer.is_materialized(lake, stage, profile.materialize_packs):
            pack_materializer.remove_packed_rows(lake, stage)
            plan_version = lake.get_table(f"pack_plan/{stage}").compute_data_version()
            return dg.MaterializeResult(
                data_version=dg.DataVersion(plan_version),
                metadata={
                    metadata_keys.ROW_COUNT: 0,
                    metadata_keys.PACK_PLAN: plan_version,
                    metadata_keys.PREVIEW: dg.MetadataValue.md("none: a small mixture is read in place"),
                },
                check_results=[
                    dg.AssetCheckResult(
                        asset_key=key, check_name=SCHEMA_CHECK, passed=True, description="no table: it is read in place"
                    )
                ],
            )
        report = pack_materializer.materialize_packs(
            lake,
            stage,
            create_executor(profile.executor),
            frame_limits=FrameLimits.for_stage(recipe, stage),
            run_id=context.run_id,
            progress_callback=_build_progress_logger(context.log.info),
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata={
                **build_table_metadata(table, rows=report.n_rows),
                metadata_keys.ROWS_KEPT: report.n_kept_rows,
                metadata_keys.IMAGE_BYTES_NEW: report.n_image_bytes,
                metadata_keys.PACK_PLAN: report.data_version,
                metadata_keys.SECONDS: report.duration_s,
                metadata_keys.PREVIEW: render_preview(
                    lake, read_first_rows(table, PREVIEW_COLUMNS, None), PREVIEW_COLUMNS
                ),
            },
            check_results=[build_schema_result(key, table)],
        )

    return packed_rows


def _build_progress_logger(log: Callable[[str], Any]) -> Callable[[int, int], None]:
    last_logged_at = time.monotonic()

    def log_progress(n_written: int, n_rows: int) -> None:
        nonlocal last_logged_at
        if n_written >= n_rows or time.monotonic() - last_logged_at >= PROGRESS_INTERVAL_S:
            last_logged_at = time.monotonic()
            log(f"wrote {n_written:,} of {n_rows:,} rows")

    return log_progress
