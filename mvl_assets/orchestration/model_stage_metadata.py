"""Metadata of a materialization by a stage that asks a model: requests, tokens, cost, rejects and a preview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mvl_assets.common import metadata_keys
from mvl_assets.config.profile import ModelProfile
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration.metadata import build_table_metadata, render_markdown_table, render_preview
from mvl_assets.orchestration.stage_progress import StageProgressLogger

if TYPE_CHECKING:
    from mvl_assets.model_stage.parts import StageReport


def build_model_stage_metadata(
    lake: Lake,
    report: StageReport,
    model: ModelProfile,
    progress_logger: StageProgressLogger,
    preview_rows: Sequence[Mapping[str, Any]],
    preview_columns: Sequence[str],
    extra_metadata: Mapping[str, object],
) -> dict[str, Any]:
    """Return the metadata of one partition.

    Args:
        lake: The lake.
        report: What the run did.
        model: The model that was asked; the first, where there are two.
        progress_logger: Draws the speed over time.
        preview_rows: A few rows of the partition.
        preview_columns: What the preview shows of them.
        extra_metadata: Metadata of this stage only; None values are left out.
    """
    requests = report.requests
    rejects = [{"error": error, "rows": n} for error, n in report.rejects_by_error.items()]
    stage_metadata: dict[str, Any] = {
        metadata_keys.REQUESTS_TOTAL: requests.requested,
        metadata_keys.REQUESTS_REUSED: requests.cache_hits,
        metadata_keys.REQUESTS_LEFT: requests.skipped,
        metadata_keys.REQUESTS_SENT: requests.attempts_sent,
        metadata_keys.REQUESTS_REASKED: requests.reasked,
        metadata_keys.PROMPT_TOKENS: requests.prompt_tokens,
        metadata_keys.COMPLETION_TOKENS: requests.completion_tokens,
        metadata_keys.COMPLETION_TOKENS_PER_S: round(requests.completion_tokens / max(report.seconds, 1e-9), 1),
        metadata_keys.COST: report.cost,
        metadata_keys.SECONDS: round(report.seconds, 2),
        metadata_keys.BLIND_ROWS: report.blind,
        metadata_keys.MODEL: f"{model.name}@{model.revision}",
        **extra_metadata,
        metadata_keys.REJECTS: render_markdown_table(rejects),
        metadata_keys.SPEED: progress_logger.render_plot(),
        metadata_keys.PREVIEW: render_preview(lake, preview_rows, preview_columns),
    }
    return build_table_metadata(
        lake.get_table(report.table), stage_metadata, rows=report.rows, partition_key=report.source
    )
