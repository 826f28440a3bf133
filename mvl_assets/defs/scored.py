"""`scored/<category>`: scores of a sample of originals and rewrites, one partition per source.

It is there only where the profile scores rows. Nothing is made of it: its recommendation is for a person.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from mvl_assets.config.catalog import Category, SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import get_score_prompt, load_prompts
from mvl_assets.defs.freshness import build_freshness_check
from mvl_assets.defs.model_stage_partition import StagePage, materialize_partition
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    MAX_PREVIEW_ROWS,
    attach_source_images,
    build_schema_check,
    read_first_rows,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.orchestration.score_metadata import build_score_metadata
from mvl_assets.stages import REWRITTEN, SCORED

if TYPE_CHECKING:
    from mvl_assets.model_stage.parts import StageReport

PREVIEW_COLUMNS = ("rewrite_id", "original", "original_scores", "rewritten", "rewritten_scores")
# Rows among which the preview looks for the samples that lost most.
N_PREVIEW_CANDIDATES = 4096


def build_scored_asset(category: Category) -> dg.AssetsDefinition:
    """Return the asset of one category."""
    key = dg.AssetKey([SCORED.name, category])
    partitions = asset_keys.build_rewritten_partitions(category)
    prompts = load_prompts()
    sources_by_prompt: dict[str, list[str]] = {}
    for family, sources in asset_keys.group_sources_by_family(category).items():
        sources_by_prompt.setdefault(get_score_prompt(prompts, family).name, []).extend(sources)
    profile = asset_keys.load_active_profile()
    model = profile.get_model("score")

    @dg.asset(
        key=key,
        code_version=asset_keys.compute_code_version(
            (model.name, model.revision, model.supports_images, model.encoded_extra_body, model.thinking_tokens),
            profile.score_rows,
        ),
        group_name=SCORED.name,
        partitions_def=partitions,
        deps=[
            dg.AssetKey([REWRITTEN.name, category]),
            *(asset_keys.build_prompt_dep(name, sources) for name, sources in sources_by_prompt.items()),
        ],
        description=f"Information content and relevance, 1 to 5, of {profile.score_rows:,} originals of each of the "
        f"{category} sources and of one rewrite of each (paper, Table A6), with what to take of each source.",
        kinds={"lance", "llm"},
        tags=asset_keys.build_category_tags(category),
        owners=asset_keys.OWNERS,
        pool="llm-judge",
        check_specs=[build_schema_check(key, partitions), build_freshness_check(key)],
    )
    def _materialize_scored(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.scoring.score import score_source

        return materialize_partition(context, lake.lake, REWRITTEN, score_source, _build_page)

    return _materialize_scored


def _build_page(lake: Lake, source: SourceSpec, profile: Profile, report: "StageReport") -> StagePage:
    """Return what the page shows of a run."""
    from mvl_assets.scoring.summary import summarize_scores

    table = lake.get_table(report.table)
    return StagePage(
        profile.get_model("score"),
        attach_source_images(
            lake, _choose_preview_rows(table, source.slug), source.slug, rewritten_category=source.category
        ),
        PREVIEW_COLUMNS,
        build_score_metadata(summarize_scores(table), source.slug),
    )


def _choose_preview_rows(table: Table, source: str) -> list[dict[str, Any]]:
    """Return the rewrites that lost most beside their originals, relevance first: those that a person should read."""
    columns = ["rewrite_id", "sample_id", "content", "relevance"]
    rows = read_first_rows(table, columns, source, N_PREVIEW_CANDIDATES)
    originals = {row["sample_id"]: row for row in rows if row["rewrite_id"] is None}
    rewrites = [row for row in rows if row["rewrite_id"] is not None and row["sample_id"] in originals]

    def get_change(row: Mapping[str, Any]) -> tuple[int, int, str]:
        original = originals[row["sample_id"]]
        return (
            row["relevance"] - original["relevance"],
            row["content"] - original["content"],
            row["sample_id"],
        )

    return [
        {
            **row,
            "original_scores": _format_scores(originals[row["sample_id"]]),
            "rewritten_scores": _format_scores(row),
        }
        for row in heapq.nsmallest(MAX_PREVIEW_ROWS, rewrites, key=get_change)
    ]


def _format_scores(row: Mapping[str, Any]) -> str:
    return f"content {row['content']}, relevance {row['relevance']}"


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all categories with sources of group B; none where the profile scores no rows."""
    if not asset_keys.load_active_profile().score_rows:
        return dg.Definitions()
    return dg.Definitions(assets=[build_scored_asset(c) for c in asset_keys.list_rewritten_categories()])
