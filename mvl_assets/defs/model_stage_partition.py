"""Materialization of one partition of a stage that asks a model: what `rewritten`, `judged` and `scored` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import ModelProfile, Profile
from mvl_assets.defs.freshness import build_freshness_result
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import build_schema_result
from mvl_assets.orchestration.model_stage_metadata import build_model_stage_metadata
from mvl_assets.orchestration.retry_tags import parse_retry_error_classes
from mvl_assets.orchestration.stage_progress import StageProgressLogger
from mvl_assets.orchestration.upstream import require_upstream
from mvl_assets.stages import Stage

if TYPE_CHECKING:
    from mvl_assets.model_stage.parts import StageReport

Report = TypeVar("Report", bound="StageReport")


@dataclass(frozen=True, slots=True)
class StagePage:
    """What a stage's page shows besides what all stages show.

    Attributes:
        model: The model that was asked; the first, where there are several.
        preview_rows: A few rows of the partition.
        preview_columns: What the preview shows of them.
        metadata: Metadata of this stage only; None values are left out.
    """

    model: ModelProfile
    preview_rows: Sequence[Mapping[str, Any]]
    preview_columns: Sequence[str]
    metadata: Mapping[str, object]


def materialize_partition(
    context: dg.AssetExecutionContext,
    lake: Lake,
    upstream: Stage,
    run_source: Callable[..., Report],
    build_page: Callable[[Lake, SourceSpec, Profile, Report], StagePage],
) -> dg.MaterializeResult:
    """Run a stage for the source of a partition, and return what Dagster shows and checks of it.

    Args:
        context: Names the asset and the partition.
        lake: The lake.
        upstream: The stage whose rows are read.
        run_source: Runs the stage.
        build_page: Returns what the page shows of the report.
    """
    source, profile, key = asset_keys.get_partition_source(context), asset_keys.load_active_profile(), context.asset_key
    category = key.path[1]
    require_upstream(context, lake, upstream, category)
    progress_logger = StageProgressLogger(context)
    report = run_source(
        lake,
        source,
        profile,
        run_id=context.run_id,
        retry_error_classes=parse_retry_error_classes(context),
        progress=progress_logger,
    )
    page = build_page(lake, source, profile, report)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.published.data_version),
        metadata=build_model_stage_metadata(
            lake, report, page.model, progress_logger, page.preview_rows, page.preview_columns, page.metadata
        ),
        check_results=[
            build_schema_result(key, lake.get_table(report.table), source.slug),
            build_freshness_result(key, lake, category),
        ],
    )
